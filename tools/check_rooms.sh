#!/usr/bin/env bash
# Fails when an #include points against the direction of the rooms:
#   core <- autograd <- ops <- models <- eval <- train <- tools;  data uses core alone and may be used from models up.
set -u
bad=0
check() { # ROOM, rooms it must not include
  local room=$1
  shift
  local pattern
  pattern=$(IFS='|'; echo "$*")
  if grep -nE "^#include \"($pattern)/" "$room"/*.h "$room"/*.cpp "$room"/*.cu "$room"/*/*.h "$room"/*/*.cpp 2>/dev/null; then
    echo "rooms: $room/ must not include from: $*"
    bad=1
  fi
}
check core autograd ops models data eval train tools tests
check autograd ops models data eval train tools tests
check ops models data eval train tools tests
check data autograd ops models eval train tools tests
check models eval train tools tests
check eval train tools tests
check train tools tests
check tools tests
exit $bad

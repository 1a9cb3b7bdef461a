// The frame of every main:
//
//   int main(int argc, char** argv) {
//     return run_program(argc, argv, [](Arguments& arguments) {
//       const auto options = parse_options<InspectOptions>(arguments, "Lists what an HDF5 file of ours
//       holds.");
//       ...
//       return kDone;
//     });
//   }
//
// An Error becomes one line "NAME: message" on standard error and exit code 1. What is meant for standard
// output is flushed, and a write that failed there is an error too. A closed pipe (`inspect x.h5 | head`) ends
// the program in silence by SIGPIPE, as usual; SIGXFSZ is ignored, so that writing past a file size limit is an
// error with a message.
#pragma once
#include "core/options.h"

namespace modrwkv {

constexpr int kDone = 0, kFailed = 1;
constexpr int kStoppedBySignal = 75;  // stopped by a signal after saving; start again to go on

int run_program(int argc, const char* const* argv, int (*program)(Arguments& arguments));

}  // namespace modrwkv

// JSON values: enough to write and read configurations, manifests and log lines. Objects keep the order in
// which keys were set. Numbers print shortest so that they read back equal; NaN and infinities print as null.
// Errors name the key and what was found; callers add the file.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace modrwkv {

class Json {
 public:
  enum class Kind { null, boolean, integer, number, string, array, object };

  Json() = default;  // null
  Json(bool x) : kind_(Kind::boolean), integer_(x) {}
  Json(int x) : kind_(Kind::integer), integer_(x) {}
  Json(long x) : kind_(Kind::integer), integer_(x) {}
  Json(long long x) : kind_(Kind::integer), integer_(x) {}
  Json(unsigned x) : kind_(Kind::integer), integer_(x) {}
  Json(unsigned long x);  // above 2^63 it becomes a number
  Json(unsigned long long x) : Json(static_cast<unsigned long>(x)) {}
  Json(float x);  // printed shortest as a float
  Json(double x) : kind_(Kind::number), number_(x) {}
  Json(const char* x) : kind_(Kind::string), string_(x) {}
  Json(std::string x) : kind_(Kind::string), string_(std::move(x)) {}
  template <class T>
  Json(const std::vector<T>& items) : kind_(Kind::array) {
    for (const auto& x : items) push(Json(x));
  }
  static Json array();
  static Json object();
  // Text of at most 64 nested levels; `where` begins the message.
  static Json parse(std::string_view text, const std::string& where = "json");

  Kind kind() const { return kind_; }
  bool is_object() const { return kind_ == Kind::object; }
  bool is_array() const { return kind_ == Kind::array; }
  bool is_null() const { return kind_ == Kind::null; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_number() const { return kind_ == Kind::integer || kind_ == Kind::number; }
  bool operator==(const Json& other) const;  // objects: whatever the order of keys; 1 equals 1.0

  // Objects.
  Json& set(const std::string& key, Json value);    // replaces; returns *this
  void append(const std::string& key, Json value);  // set for a key that is known to be new
  const Json* find(const std::string& key) const;   // null where missing
  const Json& at(const std::string& key) const;
  const std::vector<std::pair<std::string, Json>>& members() const { return members_; }
  int64_t get_int(const std::string& key) const;
  double get_double(const std::string& key) const;  // null is NaN
  const std::string& get_string(const std::string& key) const;
  bool get_bool(const std::string& key) const;

  // Arrays.
  void push(Json value);
  const std::vector<Json>& items() const { return items_; }

  int64_t as_int() const;
  double as_double() const;
  const std::string& as_string() const;
  bool as_bool() const;

  std::string dump() const;       // one line: {"a": 1, "b": [1, 2]}
  std::string pretty() const;     // two spaces a level, for files that people read
  std::string canonical() const;  // sorted keys, no spaces: equal values give equal text

 private:
  void write(std::string& out, int indent, int level, bool sorted) const;

  Kind kind_ = Kind::null;
  bool single_ = false;  // number_ came from a float
  int64_t integer_ = 0;
  double number_ = 0;
  std::string string_;
  std::vector<Json> items_;
  std::vector<std::pair<std::string, Json>> members_;
};

}  // namespace modrwkv

// JSON values; the only file that sees nlohmann's parser.
#include "core/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace modrwkv {
namespace {

constexpr size_t kMaxDepth = 64;

const char* name_of(Json::Kind kind) {
  constexpr const char* names[] = {"null",     "a boolean", "an integer", "a number",
                                   "a string", "an array",  "an object"};
  return names[int(kind)];
}

void write_string(std::string& out, const std::string& s) {
  out += '"';
  for (size_t i = 0; i < s.size();) {
    const unsigned char c = static_cast<unsigned char>(s[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += s[i++];
    } else if (c == '\n') {
      out += "\\n", ++i;
    } else if (c == '\t') {
      out += "\\t", ++i;
    } else if (c < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", c), ++i;
    } else if (c < 0x80) {
      out += s[i++];
    } else {  // UTF-8, checked: what is not becomes U+FFFD
      const int more = c >= 0xf0 && c < 0xf5 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : 0;
      bool good = more > 0 && c < 0xf5 && i + size_t(more) < s.size();
      uint32_t code = more == 3 ? c & 7 : more == 2 ? c & 15 : c & 31;
      for (int k = 1; good && k <= more; ++k) {
        const unsigned char d = static_cast<unsigned char>(s[i + size_t(k)]);
        good = (d & 0xc0) == 0x80;
        code = code << 6 | (d & 63);
      }
      good = good && !(more == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) &&
             !(more == 3 && (code < 0x10000 || code > 0x10ffff));
      if (good) {
        out.append(s, i, size_t(more) + 1);
        i += size_t(more) + 1;
      } else {
        out += "\xef\xbf\xbd";
        ++i;
      }
    }
  }
  out += '"';
}

template <class T>
void write_number(std::string& out, T x) {
  if (!std::isfinite(x)) {
    out += "null";
    return;
  }
  char text[40];
  const auto end = std::to_chars(text, text + sizeof text, x).ptr;
  out.append(text, end);
  if (std::find_if(text, end, [](char c) { return c == '.' || c == 'e'; }) == end) out += ".0";
}

// Builds a Json from the parser's events; its own stack, so that depth is bounded.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Json result;
  std::string problem;

  bool null() override { return put(Json()); }
  bool boolean(bool x) override { return put(Json(x)); }
  bool number_integer(number_integer_t x) override { return put(Json(x)); }
  bool number_unsigned(number_unsigned_t x) override { return put(Json(x)); }
  bool number_float(number_float_t x, const string_t&) override { return put(Json(x)); }
  bool string(string_t& x) override { return put(Json(std::move(x))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& x) override {
    keys_.back() = x;
    return true;
  }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception&) override {
    problem = fmt::format("not valid JSON near byte {}", at);
    return false;
  }

 private:
  bool put(Json value) {
    if (open_.empty()) {
      result = std::move(value);
    } else if (open_.back().is_array()) {
      open_.back().push(std::move(value));
    } else {
      open_.back().append(keys_.back(), std::move(value));
    }
    return true;
  }
  bool open(Json value) {
    if (open_.size() >= kMaxDepth) {
      problem = fmt::format("more than {} nested levels", kMaxDepth);
      return false;
    }
    open_.push_back(std::move(value));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    Json value = std::move(open_.back());
    std::vector<const std::string*> names;
    for (const auto& m : value.members()) names.push_back(&m.first);
    std::sort(names.begin(), names.end(), [](const auto* a, const auto* b) { return *a < *b; });
    for (size_t i = 1; i < names.size(); ++i) {
      if (*names[i - 1] != *names[i]) continue;
      problem = fmt::format("key \"{}\" occurs twice", names[i]->substr(0, 100));
      return false;
    }
    open_.pop_back();
    keys_.pop_back();
    return put(std::move(value));
  }
  std::vector<Json> open_;
  std::vector<std::string> keys_;
};

}  // namespace

Json::Json(unsigned long x)
    : kind_(x <= uint64_t(INT64_MAX) ? Kind::integer : Kind::number),
      integer_(int64_t(x)),
      number_(double(x)) {}

Json::Json(float x) : kind_(Kind::number), single_(true), number_(x) {}

Json Json::array() {
  Json j;
  j.kind_ = Kind::array;
  return j;
}

Json Json::object() {
  Json j;
  j.kind_ = Kind::object;
  return j;
}

Json Json::parse(std::string_view text, const std::string& where) {
  Builder builder;
  const bool good = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  require(good, "{}: {}", where, builder.problem.empty() ? "not valid JSON" : builder.problem);
  return std::move(builder.result);
}

bool Json::operator==(const Json& other) const {
  if (is_number() && other.is_number()) {
    if (kind_ == Kind::integer && other.kind_ == Kind::integer) return integer_ == other.integer_;
    return as_double() == other.as_double();
  }
  if (kind_ != other.kind_ || integer_ != other.integer_ || string_ != other.string_ || items_ != other.items_)
    return false;
  if (members_.size() != other.members_.size()) return false;
  return std::all_of(members_.begin(), members_.end(), [&](const auto& m) {
    const Json* theirs = other.find(m.first);
    return theirs && *theirs == m.second;
  });
}

Json& Json::set(const std::string& key, Json value) {
  require(kind_ == Kind::object, "json: key {} set in {}", key, name_of(kind_));
  for (auto& m : members_) {
    if (m.first == key) {
      m.second = std::move(value);
      return *this;
    }
  }
  members_.emplace_back(key, std::move(value));
  return *this;
}

void Json::append(const std::string& key, Json value) { members_.emplace_back(key, std::move(value)); }

const Json* Json::find(const std::string& key) const {
  for (const auto& m : members_) {
    if (m.first == key) return &m.second;
  }
  return nullptr;
}

const Json& Json::at(const std::string& key) const {
  const Json* value = find(key);
  require(value != nullptr, "key \"{}\" is missing", key);
  return *value;
}

namespace {

template <class Body>
auto with_key(const std::string& key, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Error& e) {
    fail("key \"{}\": {}", key, e.what());
  }
}

}  // namespace

int64_t Json::get_int(const std::string& key) const {
  const Json& value = at(key);
  return with_key(key, [&] { return value.as_int(); });
}

double Json::get_double(const std::string& key) const {
  const Json& value = at(key);
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN()
                         : with_key(key, [&] { return value.as_double(); });
}

const std::string& Json::get_string(const std::string& key) const {
  const Json& value = at(key);
  require(value.is_string(), "key \"{}\": expected a string, found {}", key, name_of(value.kind()));
  return value.string_;
}

bool Json::get_bool(const std::string& key) const {
  const Json& value = at(key);
  return with_key(key, [&] { return value.as_bool(); });
}

void Json::push(Json value) {
  require(kind_ == Kind::array, "json: item added to {}", name_of(kind_));
  items_.push_back(std::move(value));
}

int64_t Json::as_int() const {
  if (kind_ == Kind::number && number_ == std::floor(number_) && std::abs(number_) < 9e15)
    return int64_t(number_);
  require(kind_ == Kind::integer, "expected an integer, found {}", name_of(kind_));
  return integer_;
}

double Json::as_double() const {
  require(is_number(), "expected a number, found {}", name_of(kind_));
  return kind_ == Kind::integer ? double(integer_) : number_;
}

const std::string& Json::as_string() const {
  require(kind_ == Kind::string, "expected a string, found {}", name_of(kind_));
  return string_;
}

bool Json::as_bool() const {
  require(kind_ == Kind::boolean, "expected a boolean, found {}", name_of(kind_));
  return integer_ != 0;
}

void Json::write(std::string& out, int indent, int level, bool sorted) const {
  const auto line = [&](int at) {
    if (indent > 0) out += "\n" + std::string(size_t(indent * at), ' ');
  };
  const char* comma = sorted || indent > 0 ? "," : ", ";
  const char* colon = sorted ? ":" : ": ";
  switch (kind_) {
    case Kind::null:
      out += "null";
      return;
    case Kind::boolean:
      out += integer_ ? "true" : "false";
      return;
    case Kind::integer:
      out += std::to_string(integer_);
      return;
    case Kind::number:
      if (single_) return write_number(out, float(number_));
      return write_number(out, number_);
    case Kind::string:
      return write_string(out, string_);
    case Kind::array: {
      out += '[';
      for (size_t i = 0; i < items_.size(); ++i) {
        if (i) out += comma;
        line(level + 1);
        items_[i].write(out, indent, level + 1, sorted);
      }
      if (!items_.empty()) line(level);
      out += ']';
      return;
    }
    case Kind::object: {
      std::vector<const std::pair<std::string, Json>*> order;
      for (const auto& m : members_) order.push_back(&m);
      if (sorted)
        std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
      out += '{';
      for (size_t i = 0; i < order.size(); ++i) {
        if (i) out += comma;
        line(level + 1);
        write_string(out, order[i]->first);
        out += colon;
        order[i]->second.write(out, indent, level + 1, sorted);
      }
      if (!order.empty()) line(level);
      out += '}';
      return;
    }
  }
}

std::string Json::dump() const {
  std::string out;
  write(out, 0, 0, false);
  return out;
}

std::string Json::pretty() const {
  std::string out;
  write(out, 2, 0, false);
  return out + "\n";
}

std::string Json::canonical() const {
  std::string out;
  write(out, 0, 0, true);
  return out;
}

}  // namespace modrwkv

// A strict reader of the XML subset that our SVG and HTML use: nesting, attributes, entities.
#pragma once
#include <cctype>
#include <map>
#include <string>
#include <vector>

namespace modrwkv {

struct XmlElement {
  std::string name, text;  // text directly inside, entities resolved
  std::map<std::string, std::string> attributes;
  double number(const std::string& key) const { return std::stod(attributes.at(key)); }
};

// All elements in the order of their start tags. `problem` is empty for well-formed text. `html`: <!DOCTYPE>,
// <meta> without an end.
inline std::vector<XmlElement> read_xml(const std::string& text, std::string& problem, bool html = false) {
  std::vector<XmlElement> all;
  std::vector<size_t> open;
  const auto resolve = [&](const std::string& raw) {
    static const std::map<std::string, std::string> kNames = {
        {"lt", "<"}, {"gt", ">"}, {"amp", "&"}, {"quot", "\""}, {"#39", "'"}};
    std::string out;
    for (size_t i = 0; i < raw.size(); ++i) {
      if ((unsigned char)raw[i] < 32 && raw[i] != '\n') problem = "control character";
      if (raw[i] != '&') {
        out += raw[i];
        continue;
      }
      const size_t end = raw.find(';', i);
      const auto it = end == std::string::npos ? kNames.end() : kNames.find(raw.substr(i + 1, end - i - 1));
      if (it == kNames.end()) {
        problem = "bad entity in " + raw.substr(0, 80);
        return out;
      }
      out += it->second;
      i = end;
    }
    return out;
  };
  size_t i = 0;
  if (html && text.rfind("<!DOCTYPE html>", 0) == 0) i = 15;
  while (i < text.size() && problem.empty()) {
    if (text[i] != '<') {
      const size_t end = std::min(text.find('<', i), text.size());
      const std::string piece = text.substr(i, end - i);
      const bool raw = !open.empty() && all[open.back()].name == "style";
      const std::string content = raw ? piece : resolve(piece);
      if (!open.empty())
        all[open.back()].text += content;
      else if (content.find_first_not_of(" \n") != std::string::npos)
        problem = "text outside of the root";
      i = end;
      continue;
    }
    const size_t end = text.find('>', i);
    if (end == std::string::npos) return problem = "tag without end", all;
    std::string tag = text.substr(i + 1, end - i - 1);
    i = end + 1;
    if (tag[0] == '/') {
      if (open.empty() || all[open.back()].name != tag.substr(1))
        problem = "unexpected end of " + tag;
      else
        open.pop_back();
      continue;
    }
    const bool closed = tag.back() == '/';
    if (closed) tag.pop_back();
    XmlElement element;
    size_t k = 0;
    while (k < tag.size() && std::isalnum((unsigned char)tag[k])) element.name += tag[k++];
    if (element.name.empty()) problem = "tag without a name";
    while (k < tag.size() && problem.empty()) {
      if (tag[k] == ' ' || tag[k] == '\n') {
        ++k;
        continue;
      }
      const size_t equals = tag.find('=', k);
      if (html && equals == std::string::npos && tag.substr(k) == "open") break;
      if (equals == std::string::npos || tag[equals + 1] != '"')
        return problem = "attribute without a value in " + tag, all;
      const size_t quote = tag.find('"', equals + 2);
      if (quote == std::string::npos) return problem = "attribute without an end in " + tag, all;
      const std::string key = tag.substr(k, equals - k);
      if (!element.attributes.emplace(key, resolve(tag.substr(equals + 2, quote - equals - 2))).second)
        problem = key + " is given twice";
      k = quote + 1;
    }
    all.push_back(element);
    if (!closed && !(html && element.name == "meta")) open.push_back(all.size() - 1);
    if (open.empty() && !html && i < text.size() && text.find('<', i) != std::string::npos)
      problem = "second root";
  }
  if (problem.empty() && !open.empty()) problem = "no end of " + all[open.back()].name;
  return all;
}

}  // namespace modrwkv

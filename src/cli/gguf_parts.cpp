#include "cli/gguf_parts.h"

namespace mneme::cli {

GgufPart gguf_part(std::string_view name) {
  constexpr std::string_view shape = "-#####-of-#####.gguf";  // # is a digit
  if (name.size() <= shape.size()) return {std::string(name), 1};
  const std::string_view tail = name.substr(name.size() - shape.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    if (shape[i] == '#' ? !digit : tail[i] != shape[i]) return {std::string(name), 1};
  }
  int number = 0;
  for (const char c : tail.substr(1, 5)) number = number * 10 + (c - '0');
  return {std::string(name.substr(0, name.size() - shape.size())) + ".gguf", number};
}

}  // namespace mneme::cli

// Names of split GGUF files: "m-00002-of-00003.gguf" is part 2 of "m.gguf".
#pragma once
#include <string>
#include <string_view>

namespace mneme::cli {

struct GgufPart {
  std::string whole;  // the name without its part number; the name itself if it has none
  int number = 1;     // counted from 1
};
GgufPart gguf_part(std::string_view name);

}  // namespace mneme::cli

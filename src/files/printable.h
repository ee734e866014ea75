// Names that come from a file, made safe for a one-line message.
#pragma once
#include <string>
#include <string_view>

namespace mneme {

/// At most 80 bytes of `text`; others than printable ASCII, and backslashes, as \xNN.
std::string printable(std::string_view text);

}  // namespace mneme

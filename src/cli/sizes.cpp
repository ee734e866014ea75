#include "cli/sizes.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cmath>

#include "cli/verb.h"

namespace mneme::cli {

uint64_t size_argument(const std::string& text, std::string_view option) {
  if (text.empty()) return 0;
  const auto wrong = [&]() -> UsageError {
    return UsageError(
        fmt::format("{} is \"{}\"; write bytes, or an amount such as 512M, 1.5G or 64Mi", option, text));
  };
  double amount = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, amount);
  if (error != std::errc() || !(amount >= 0)) throw wrong();
  std::string unit;
  for (const char* at = rest; at < end; ++at)
    if (*at != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*at)));
  if (unit.ends_with('b')) unit.pop_back();
  double base = 1000;
  if (unit.ends_with('i')) {
    base = 1024;
    unit.pop_back();
    if (unit.empty()) throw wrong();
  }
  const size_t power = unit.empty() ? 0 : std::string_view("kmgt").find(unit) + 1;
  if (unit.size() > 1 || (power == 0 && !unit.empty())) throw wrong();
  const double bytes = amount * std::pow(base, static_cast<double>(power));
  if (!(bytes < 9e18)) throw wrong();
  return static_cast<uint64_t>(bytes);
}

}  // namespace mneme::cli

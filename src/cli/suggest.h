// "Did you mean ...": the nearest of some names to what was typed.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace mneme::cli {

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
size_t edit_distance(std::string_view a, std::string_view b);
/// The nearest name that is close enough to be a slip (at most a third of its letters differ, or `typed`
/// begins it), or "".
std::string nearest(std::string_view typed, const std::vector<std::string>& names);
/// "; did you mean NAME?" or "".
std::string did_you_mean(std::string_view typed, const std::vector<std::string>& names);

}  // namespace mneme::cli

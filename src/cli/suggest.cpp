#include "cli/suggest.h"

#include <algorithm>
#include <limits>

namespace mneme::cli {

size_t edit_distance(std::string_view a, std::string_view b) {
  // Rows of the optimal-string-alignment table: two back, one back, current.
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string nearest(std::string_view typed, const std::vector<std::string>& names) {
  if (typed.size() > 200) return "";
  std::string best;
  size_t best_distance = std::numeric_limits<size_t>::max();
  for (const std::string& name : names) {
    size_t distance = edit_distance(typed, name);
    const bool begins = typed.size() >= 2 && name.starts_with(typed);
    if (!begins && distance > std::max<size_t>(1, std::max(name.size(), typed.size()) / 3)) continue;
    if (begins) distance = 0;
    if (distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view typed, const std::vector<std::string>& names) {
  const std::string name = nearest(typed, names);
  return name.empty() ? "" : "; did you mean " + name + "?";
}

}  // namespace mneme::cli

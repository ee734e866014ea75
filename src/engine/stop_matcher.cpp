#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "core/fail.h"
#include "text/utf8.h"

namespace mneme {

StopMatcher::StopMatcher(const std::vector<std::string>& patterns) {
  for (const std::string& text : patterns) {
    require(!text.empty(), ErrorCode::invalid_argument, "a stop string is empty: it would match everywhere");
    require(is_valid_utf8(text), ErrorCode::invalid_argument,
            "a stop string is not valid UTF-8, so generated text can never contain it");
    Pattern pattern{text, std::vector<uint32_t>(text.size() + 1, 0), 0};
    for (size_t i = 1; i < text.size(); ++i) {
      pattern.advance(text[i]);
      pattern.border[i + 1] = pattern.state;
    }
    pattern.state = 0;
    patterns_.push_back(std::move(pattern));
  }
}

void StopMatcher::Pattern::advance(char byte) noexcept {
  while (state > 0 && text[state] != byte) state = border[state];
  if (text[state] == byte) ++state;
}

std::string StopMatcher::push(std::string_view text) {
  if (matched_) return {};
  for (const char byte : text) {
    held_ += byte;
    size_t match = 0;
    for (Pattern& pattern : patterns_) {
      pattern.advance(byte);
      if (pattern.state == pattern.text.size()) match = std::max(match, pattern.text.size());
    }
    if (match == 0) continue;
    matched_ = true;
    held_.resize(held_.size() - match);
    return std::exchange(held_, {});
  }
  size_t keep = 0;
  for (const Pattern& pattern : patterns_) keep = std::max<size_t>(keep, pattern.state);
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace mneme

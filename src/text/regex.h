// Regular expressions of tokenizer files, on ICU's engine and on UTF-8 text. Time and stack are bounded: a
// pattern that explodes on a text is an error, not a hang or a crash.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace mneme {

/// Immutable; may be used by many threads at once.
class Regex {
 public:
  /// Throws Error(unsupported) with ICU's reason and the place if the pattern does not compile.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  /// Calls on_match(begin, end) in bytes for every match, left to right. `text` must be valid UTF-8.
  /// Throws Error(limit) when the time or stack bound is reached.
  void for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& on_match) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mneme

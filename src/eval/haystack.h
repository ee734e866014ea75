// The text in which an evaluation hides what it asks for: lines without end, either built from a stock of
// plain sentences that a seed varies, or those of a file, over and over.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/random.h"

namespace mneme {

/// Equal arguments give equal lines. Not thread-safe.
class Haystack {
 public:
  /// Sentences of our own: no two lines of a few thousand are equal, none holds a digit or a hyphen.
  explicit Haystack(uint64_t seed);
  /// Lines of a text file of at most 1 GiB, from a line that the seed chooses (0: the first); empty lines are
  /// left out and long ones cut at the end of sentences. Throws Error: not_found, io, limit, invalid_argument
  /// for a file with nothing but white space.
  Haystack(const std::filesystem::path& file, uint64_t seed);

  /// The next line, without a line feed.
  std::string next();

 private:
  std::string sentence();

  Pcg64 random_;
  std::vector<std::string> lines_;
  size_t at_ = 0;
};

}  // namespace mneme

// Reads what tools/make_tokenizer_golden.py wrote and compares a tokenizer with it.
#pragma once
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "core/file.h"
#include "mneme/tokenizer.h"
#include "stride.h"
#include "text/utf8.h"

namespace mneme::golden {

inline fs::path folder() {
  return fs::path(MNEME_TEST_DATA) / "tokenizer";
}

/// The corpus: lines of bytes, not always UTF-8.
inline const std::vector<std::string>& corpus() {
  static const std::vector<std::string> lines = [] {
    std::vector<std::string> out;
    const std::string data = read_text_file(folder() / "corpus.bin");
    for (size_t at = 0; at < data.size();) {
      uint32_t repeat = 0, bytes = 0;
      std::memcpy(&repeat, data.data() + at, 4);
      std::memcpy(&bytes, data.data() + at + 4, 4);
      std::string& line = out.emplace_back();
      for (uint32_t i = 0; i < repeat; ++i) line.append(data, at + 8, bytes);
      at += 8 + bytes;
    }
    return out;
  }();
  return lines;
}

inline uint32_t crc32(const void* data, size_t size) {
  static const auto table = [] {
    std::array<uint32_t, 256> out{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
      out[i] = value;
    }
    return out;
  }();
  uint32_t value = ~0u;
  for (size_t i = 0; i < size; ++i)
    value = value >> 8 ^ table[(value ^ static_cast<const uint8_t*>(data)[i]) & 0xFF];
  return ~value;
}

inline std::vector<uint32_t> read_words(const fs::path& path) {
  const std::string data = read_text_file(path);
  std::vector<uint32_t> out(data.size() / 4);
  std::memcpy(out.data(), data.data(), out.size() * 4);
  return out;
}

/// The first code points of a line, escaped, for messages.
inline std::string excerpt(const std::string& line) {
  std::string out;
  for (const char c : line.substr(0, 100)) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || byte == 0x7F)
      out += "\\x" + std::string(1, "0123456789abcdef"[byte >> 4]) + "0123456789abcdef"[byte & 15];
    else
      out += c;
  }
  return out;
}

/// Compares the full ids of a few hundred lines, then the checksums of all `indices` (those that the golden
/// has): ids, and decoded text where the golden has it. Lines that hold one of the texts `except` are left
/// out.
inline void expect_golden(const Tokenizer& tokenizer, const std::string& name,
                          const std::vector<uint32_t>& indices, const std::vector<std::string>& except = {}) {
  const auto left_out = [&](const std::string& line) {
    for (const std::string& text : except)
      if (line.find(text) != std::string::npos) return true;
    return false;
  };
  const auto& lines = corpus();
  std::istringstream full(read_text_file(folder() / (name + ".ids")));
  size_t shown = 0;
  for (std::string row; std::getline(full, row); ++shown) {
    std::istringstream in(row);
    size_t index = 0;
    char colon = 0;
    in >> index >> colon;
    std::vector<TokenId> expected;
    for (TokenId id = 0; in >> id;) expected.push_back(id);
    if (left_out(lines.at(index))) continue;
    ASSERT_EQ(tokenizer.encode(lines.at(index)), expected)
        << name << ", line " << index << ": " << excerpt(lines.at(index));
  }
  EXPECT_GE(shown, 200u);

  const std::vector<uint32_t> crc = read_words(folder() / (name + ".crc"));
  ASSERT_TRUE(crc.size() == indices.size() || crc.size() == 2 * indices.size());
  size_t ids_wrong = 0, text_wrong = 0, compared = 0;
  std::string first;
  for (size_t k = 0; k < indices.size(); k += kStride) {
    const std::string& line = lines.at(indices[k]);
    if (left_out(line)) continue;
    ++compared;
    const std::vector<TokenId> ids = tokenizer.encode(line);
    bool wrong = crc32(ids.data(), ids.size() * 4) != crc[k];
    ids_wrong += wrong;
    if (!wrong && crc.size() == 2 * indices.size()) {
      const std::string text = repair_utf8(tokenizer.decode(ids));
      wrong = crc32(text.data(), text.size()) != crc[indices.size() + k];
      text_wrong += wrong;
    }
    if (wrong && first.size() < 4000)
      first += "\n  line " + std::to_string(indices[k]) + ": " + excerpt(line);
  }
  EXPECT_GT(compared * 20 * kStride, indices.size() * 19);
  EXPECT_EQ(ids_wrong, 0u) << name << ": ids differ on these of " << indices.size() << " lines" << first;
  EXPECT_EQ(text_wrong, 0u) << name << ": decoded text differs" << first;
  testing::Test::RecordProperty("lines_equal", static_cast<int>(compared - ids_wrong));
}

inline std::vector<uint32_t> every(uint32_t step) {
  std::vector<uint32_t> out;
  for (uint32_t i = 0; i < corpus().size(); i += step) out.push_back(i);
  return out;
}

}  // namespace mneme::golden

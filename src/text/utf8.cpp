#include "text/utf8.h"

#include <cstring>

#include "mneme/tokenizer.h"

namespace mneme {

namespace {

// What may follow a lead byte: the number of continuation bytes and the range of the first of them.
struct Lead {
  uint8_t more, low, high;
};

Lead lead_of(uint8_t byte) noexcept {
  if (byte < 0xC2 || byte > 0xF4) return {0, 0, 0};
  if (byte < 0xE0) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte < 0xF0) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {3, 0x80, 0xBF};
}

// Length of the longest prefix of one well-formed character at text[0], and whether it is complete.
Utf8Char scan(std::string_view text, bool& wants_more) noexcept {
  wants_more = false;
  const auto first = static_cast<uint8_t>(text[0]);
  if (first < 0x80) return {first, 1, true};
  const Lead lead = lead_of(first);
  if (lead.more == 0) return {kReplacement, 1, false};
  char32_t code = first & (0x3Fu >> lead.more);
  for (uint32_t i = 1; i <= lead.more; ++i) {
    if (i == text.size()) {
      wants_more = true;
      return {kReplacement, i, false};
    }
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {kReplacement, i, false};
    code = (code << 6) | (byte & 0x3Fu);
  }
  return {code, uint32_t{lead.more} + 1, true};
}

// Length of the ASCII run at the start of `text`, eight bytes at a time.
size_t ascii_run(std::string_view text) noexcept {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if (word & 0x8080808080808080ull) break;
  }
  while (i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) ++i;
  return i;
}

}  // namespace

Utf8Char decode_utf8(std::string_view text) noexcept {
  bool wants_more;
  return scan(text, wants_more);
}

size_t unfinished_utf8(std::string_view text) noexcept {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    bool wants_more;
    const Utf8Char c = scan(text.substr(text.size() - back), wants_more);
    return wants_more && c.length == back ? back : 0;
  }
  return 0;
}

bool is_valid_utf8(std::string_view text) noexcept {
  while (true) {
    text.remove_prefix(ascii_run(text));
    if (text.empty()) return true;
    const Utf8Char c = decode_utf8(text);
    if (!c.valid) return false;
    text.remove_prefix(c.length);
  }
}

std::string repair_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 8);
  while (true) {
    const size_t run = ascii_run(text);
    out.append(text.substr(0, run));
    text.remove_prefix(run);
    if (text.empty()) return out;
    const Utf8Char c = decode_utf8(text);
    if (c.valid)
      out.append(text.substr(0, c.length));
    else
      append_utf8(out, kReplacement);
    text.remove_prefix(c.length);
  }
}

void append_utf8(std::string& out, char32_t code) {
  const auto push = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    push(code);
  } else if (code < 0x800) {
    push(0xC0 | (code >> 6));
    push(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    push(0xE0 | (code >> 12));
    push(0x80 | ((code >> 6) & 0x3F));
    push(0x80 | (code & 0x3F));
  } else {
    push(0xF0 | (code >> 18));
    push(0x80 | ((code >> 12) & 0x3F));
    push(0x80 | ((code >> 6) & 0x3F));
    push(0x80 | (code & 0x3F));
  }
}

std::string Utf8Stream::push(std::string_view bytes) {
  pending_.append(bytes);
  const size_t keep = unfinished_utf8(pending_);
  std::string out = repair_utf8(std::string_view(pending_).substr(0, pending_.size() - keep));
  pending_.erase(0, pending_.size() - keep);
  return out;
}

std::string Utf8Stream::finish() {
  std::string out = repair_utf8(pending_);
  pending_.clear();
  return out;
}

}  // namespace mneme

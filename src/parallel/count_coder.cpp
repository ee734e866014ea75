#include "parallel/count_coder.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>

#include "simd/spike.h"

namespace mneme {
namespace {

constexpr uint32_t kExact = 16;    // magnitudes below are symbols of their own
constexpr uint32_t kSymbols = 45;  // the last is that of kMostCount, below
constexpr uint32_t kScaleBits = 12, kScale = 1u << kScaleBits;
constexpr uint32_t kLow = 1u << 23;  // the state is within [kLow, 256 kLow)

struct Bucket {
  uint32_t symbol, bits, low;  // `bits` plain bits follow, which say how far above `low` the magnitude is
};
constexpr Bucket bucket_of(uint32_t magnitude) {
  if (magnitude < kExact) return {magnitude, 0, magnitude};
  const auto width = static_cast<uint32_t>(std::bit_width(magnitude));
  const uint32_t bits = width - 2, half = magnitude >> bits;  // 2 or 3
  return {kExact + 2 * (width - 5) + (half - 2), bits, half << bits};
}
static_assert(bucket_of(kMostCount).symbol + 1 == kSymbols);
Bucket bucket_of_symbol(uint32_t symbol) {
  if (symbol < kExact) return {symbol, 0, symbol};
  const uint32_t bits = 3 + (symbol - kExact) / 2;
  return {symbol, bits, (2 + (symbol - kExact) % 2) << bits};
}

class BitWriter {
 public:
  void put(uint32_t value, uint32_t bits) {
    held_ |= uint64_t{value} << count_;
    count_ += bits;
    for (; count_ >= 8; count_ -= 8, held_ >>= 8) bytes_.push_back(static_cast<std::byte>(held_ & 0xff));
  }
  MessageBytes finish() {
    if (count_ > 0) bytes_.push_back(static_cast<std::byte>(held_ & 0xff));
    return std::move(bytes_);
  }

 private:
  MessageBytes bytes_;
  uint64_t held_ = 0;
  uint32_t count_ = 0;
};

class BitReader {
 public:
  explicit BitReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  /// Beyond the end come zeros; `overrun()` says so.
  uint32_t get(uint32_t bits) {
    while (count_ < bits) {
      uint64_t next = 0;
      if (at_ < bytes_.size())
        next = static_cast<uint64_t>(bytes_[at_]);
      else
        overrun_ = true;
      ++at_;
      held_ |= next << count_;
      count_ += 8;
    }
    const auto out = static_cast<uint32_t>(held_ & ((uint64_t{1} << bits) - 1));
    held_ >>= bits;
    count_ -= bits;
    return out;
  }
  bool ends_well() const { return !overrun_ && at_ == bytes_.size() && held_ == 0; }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  uint64_t held_ = 0;
  uint32_t count_ = 0;
  bool overrun_ = false;
};

/// Frequencies in 4096ths, made from levels in whole numbers, so that both ends have the same.
class Table {
 public:
  std::vector<uint8_t> levels;  // [symbols]
  std::array<uint32_t, kSymbols> frequency{}, start{};

  void levels_of(const std::array<uint64_t, kSymbols>& histogram, uint64_t total) {
    for (uint32_t s = 0; s < kSymbols; ++s) {
      if (histogram[s] == 0) continue;
      levels.resize(s + 1);
      const double octaves = std::log2(static_cast<double>(total) / static_cast<double>(histogram[s]));
      levels[s] = static_cast<uint8_t>(1 + std::min<int64_t>(std::lround(8 * octaves), 254));
    }
    build();
  }
  /// False for a table without symbols.
  bool build() {
    std::array<uint64_t, kSymbols> weight{};
    uint64_t sum = 0;
    for (size_t s = 0; s < levels.size(); ++s)
      if (levels[s] > 0)
        sum += weight[s] = std::max<uint64_t>(1, kEighths[(levels[s] - 1) % 8] >> (levels[s] - 1) / 8);
    if (sum == 0) return false;
    int64_t left = kScale;
    size_t likeliest = 0;
    for (size_t s = 0; s < levels.size(); ++s) {
      if (weight[s] == 0) continue;
      frequency[s] = static_cast<uint32_t>(std::max<uint64_t>(1, weight[s] * kScale / sum));
      left -= frequency[s];
      if (weight[s] > weight[likeliest]) likeliest = s;
    }
    // Rounding moves the sum by less than one a symbol; the likeliest, at least 1/45 of all, bears it best.
    frequency[likeliest] = static_cast<uint32_t>(static_cast<int64_t>(frequency[likeliest]) + left);
    for (uint32_t s = 0, at = 0; s < kSymbols; at += frequency[s++]) start[s] = at;
    return true;
  }

 private:
  // 2^32 * 2^(-i / 8)
  static constexpr std::array<uint64_t, 8> kEighths{4294967296, 3938502376, 3611622603, 3311872529,
                                                    3037000500, 2784941738, 2553802834, 2341847524};
};

/// Symbols from the last to the first, so that the decoder meets them in order.
MessageBytes code_symbols(const Table& table, std::span<const uint8_t> symbols) {
  MessageBytes reversed;
  reversed.reserve(symbols.size());
  uint32_t state = kLow;
  for (size_t i = symbols.size(); i-- > 0;) {
    const uint32_t frequency = table.frequency[symbols[i]];
    const uint64_t most = uint64_t{kLow >> kScaleBits} * 256 * frequency;
    for (; state >= most; state >>= 8) reversed.push_back(static_cast<std::byte>(state & 0xff));
    state = (state / frequency << kScaleBits) + state % frequency + table.start[symbols[i]];
  }
  for (int i = 0; i < 4; ++i, state >>= 8) reversed.push_back(static_cast<std::byte>(state & 0xff));
  std::reverse(reversed.begin(), reversed.end());
  return reversed;
}

void write_plain(std::span<const int32_t> counts, MessageWriter& out) {
  out.value(uint8_t{0});
  for (const int32_t count : counts) out.value(static_cast<int8_t>(count));
}

size_t varint_bytes(uint64_t v) {
  return (static_cast<size_t>(std::bit_width(v | 1)) + 6) / 7;
}

Table read_table(MessageReader& in) {
  Table table;
  for (const std::byte level : in.raw(in.varint(kSymbols)))
    table.levels.push_back(static_cast<uint8_t>(level));
  require(table.build(), ErrorCode::corrupt, "{}: coded counts without a table", in.what());
  return table;
}

}  // namespace

void encode_counts(std::span<const int32_t> counts, MessageWriter& out) {
  std::vector<uint8_t> symbols(counts.size());
  std::array<uint64_t, kSymbols> histogram{};
  BitWriter bits;
  bool fits_int8 = true;
  for (size_t i = 0; i < counts.size(); ++i) {
    const int32_t count = counts[i];
    require(count >= -kMostCount && count <= kMostCount, ErrorCode::internal,
            "a spike count of {} is beyond what a message holds", count);
    const auto magnitude = static_cast<uint32_t>(std::abs(count));
    const Bucket bucket = bucket_of(magnitude);
    symbols[i] = static_cast<uint8_t>(bucket.symbol);
    ++histogram[bucket.symbol];
    if (magnitude > 0) bits.put(count < 0 ? 1 : 0, 1);
    if (bucket.bits > 0) bits.put(magnitude - bucket.low, bucket.bits);
    fits_int8 &= magnitude <= 127;
  }
  if (counts.empty()) return write_plain(counts, out);
  Table table;
  table.levels_of(histogram, counts.size());
  const MessageBytes coded = code_symbols(table, symbols), plain = bits.finish();
  const size_t size = varint_bytes(table.levels.size()) + table.levels.size() + varint_bytes(coded.size()) +
                      coded.size() + varint_bytes(plain.size()) + plain.size();
  if (fits_int8 && size >= counts.size()) return write_plain(counts, out);
  out.value(uint8_t{1});
  out.varint(table.levels.size());
  out.raw(table.levels.data(), table.levels.size());
  for (const MessageBytes* part : {&coded, &plain}) {
    out.varint(part->size());
    out.raw(part->data(), part->size());
  }
}

void decode_counts(MessageReader& in, std::span<int32_t> counts) {
  const auto kind = in.value<uint8_t>();
  require(kind <= 1, ErrorCode::corrupt, "{}: counts of an unknown kind {}", in.what(), kind);
  if (kind == 0) {
    const auto bytes = in.raw(counts.size());
    for (size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<int8_t>(bytes[i]);
    return;
  }
  const Table table = read_table(in);
  std::array<uint8_t, kScale> symbol_at{};
  for (uint32_t s = 0; s < kSymbols; ++s)
    std::fill_n(symbol_at.begin() + table.start[s], table.frequency[s], static_cast<uint8_t>(s));
  const auto coded = in.raw(in.varint(in.left())), plain = in.raw(in.varint(in.left()));
  require(coded.size() >= 4, ErrorCode::corrupt, "{}: coded counts without a state", in.what());
  uint32_t state = 0;
  for (size_t i = 0; i < 4; ++i) state = state << 8 | static_cast<uint32_t>(coded[i]);
  size_t at = 4;
  bool whole = state >= kLow;
  BitReader bits(plain);
  for (int32_t& count : counts) {
    const uint32_t slot = state & (kScale - 1), symbol = symbol_at[slot];
    state = table.frequency[symbol] * (state >> kScaleBits) + slot - table.start[symbol];
    for (; state < kLow && at < coded.size(); ++at) state = state << 8 | static_cast<uint32_t>(coded[at]);
    whole &= state >= kLow;
    const Bucket bucket = bucket_of_symbol(symbol);
    const bool negative = symbol > 0 && bits.get(1) == 1;
    const auto magnitude = static_cast<int32_t>(bucket.low + (bucket.bits > 0 ? bits.get(bucket.bits) : 0));
    count = negative ? -magnitude : magnitude;
    whole &= magnitude <= kMostCount;
  }
  require(whole && state == kLow && at == coded.size() && bits.ends_well(), ErrorCode::corrupt,
          "{}: the coded counts are damaged", in.what());
}

}  // namespace mneme

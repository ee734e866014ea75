#include "simd/rows.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/rows.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/fail.h"
#include "core/fp8.h"
#include "core/half.h"
#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;  // divides a block of 32
constexpr D d;
constexpr hn::RebindToUnsigned<D> du;
constexpr hn::RebindToSigned<D> di;
constexpr hn::Rebind<uint8_t, D> d8;
constexpr hn::Rebind<int8_t, D> di8;
constexpr hn::Rebind<uint16_t, D> d16;

void decode_bf16_n(const std::byte* record, int64_t n, float* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* from = reinterpret_cast<const uint16_t*>(record);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto wide = hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(d16, from + i)));
    hn::StoreU(hn::BitCast(d, wide), d, out + i);
  }
  for (; i < n; ++i) out[i] = bf16_to_f32(load_le<uint16_t>(record + 2 * i));
}

void decode_int8_n(const std::byte* record, int64_t n, float* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* from = reinterpret_cast<const int8_t*>(record);
  const float scale = load_le<float>(record + n);
  const auto s = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto code = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(di8, from + i)));
    hn::StoreU(hn::Mul(code, s), d, out + i);
  }
  for (; i < n; ++i) out[i] = static_cast<float>(from[i]) * scale;
}

// A code's 7 lower bits moved to a float's exponent and mantissa are off by 2^120 where the code is normal;
// a subnormal one is its mantissa in units of 2^-9. Float subnormals are never touched: they are slow.
HWY_INLINE hn::Vec<D> e4m3_lanes(hn::VFromD<decltype(du)> code) {
  const auto magnitude = hn::And(code, hn::Set(du, 0x7fu));
  const auto sign = hn::ShiftLeft<24>(hn::And(code, hn::Set(du, 0x80u)));
  const auto normal = hn::Add(hn::ShiftLeft<20>(magnitude), hn::Set(du, 120u << 23));
  const auto subnormal = hn::Mul(hn::ConvertTo(d, hn::BitCast(di, magnitude)), hn::Set(d, 0x1p-9f));
  const auto small = hn::Lt(hn::BitCast(di, magnitude), hn::Set(di, 8));
  const auto nan = hn::Eq(hn::BitCast(di, magnitude), hn::Set(di, 0x7f));
  auto bits = hn::IfThenElse(hn::RebindMask(du, small), hn::BitCast(du, subnormal), normal);
  bits = hn::IfThenElse(hn::RebindMask(du, nan), hn::Set(du, 0x7fc00000u), bits);
  return hn::BitCast(d, hn::Or(bits, sign));
}

void decode_fp8_n(const std::byte* record, int64_t n, float* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* codes = reinterpret_cast<const uint8_t*>(record);
  for (int64_t begin = 0; begin < n; begin += 32) {
    const int64_t end = HWY_MIN(begin + 32, n);
    const float scale = e8m0_to_f32(codes[n + begin / 32]);
    const auto s = hn::Set(d, scale);
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes)
      hn::StoreU(hn::Mul(e4m3_lanes(hn::PromoteTo(du, hn::LoadU(d8, codes + i))), s), d, out + i);
    for (; i < end; ++i) out[i] = e4m3_to_f32(codes[i]) * scale;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {
namespace {

constexpr int64_t kBlock = 32;  // values under one E8M0 scale

HWY_EXPORT(decode_bf16_n);
HWY_EXPORT(decode_int8_n);
HWY_EXPORT(decode_fp8_n);

using Decode = void (*)(const std::byte*, int64_t, float*);

void decode_f32_n(const std::byte* record, int64_t n, float* out) {
  std::memcpy(out, record, static_cast<size_t>(n) * sizeof(float));
}

Decode decoder(RowFormat format) {
  sync_highway_isa();
  switch (format) {
    case RowFormat::bf16:
      return &HWY_DYNAMIC_DISPATCH(decode_bf16_n);
    case RowFormat::int8:
      return &HWY_DYNAMIC_DISPATCH(decode_int8_n);
    case RowFormat::fp8_e4m3_e8m0:
      return &HWY_DYNAMIC_DISPATCH(decode_fp8_n);
    case RowFormat::f32:
      break;
  }
  return decode_f32_n;
}

// Largest |row|; every value is finite.
float checked_peak(const float* row, int64_t n) {
  float peak = 0;
  for (int64_t i = 0; i < n; ++i) {
    require(std::isfinite(row[i]), ErrorCode::invalid_argument,
            "value {} of a memory row is {}; a row with a scale holds finite numbers only", i, row[i]);
    peak = std::max(peak, std::abs(row[i]));
  }
  return peak;
}

void encode_int8(const float* row, int64_t n, std::byte* record) {
  const float scale = checked_peak(row, n) / 127.0f;
  for (int64_t i = 0; i < n; ++i) {
    // A row so small that its scale is subnormal divides inexactly, so the code is clamped.
    const float code = scale > 0 ? std::nearbyint(row[i] / scale) : 0.0f;
    record[i] = static_cast<std::byte>(static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f)));
  }
  std::memcpy(record + n, &scale, sizeof scale);
}

// Byte of the smallest scale 2^(e - 127) with peak <= 448 * scale. At least 1, because some readers take
// byte 0 for zero and not for 2^-127.
uint8_t block_scale(float peak) {
  if (peak == 0) return 127;
  int exponent = 0;
  const float mantissa = std::frexp(peak, &exponent);            // peak = mantissa * 2^exponent, in [0.5, 1)
  const int power = exponent - 9 + (mantissa > 0.875f ? 1 : 0);  // 448 = 0.875 * 2^9
  return static_cast<uint8_t>(std::clamp(power + 127, 1, 254));
}

void encode_fp8(const float* row, int64_t n, std::byte* record) {
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, n);
    const uint8_t scale = block_scale(checked_peak(row + begin, end - begin));
    record[n + begin / kBlock] = static_cast<std::byte>(scale);
    for (int64_t i = begin; i < end; ++i)
      record[i] = static_cast<std::byte>(f32_to_e4m3(std::ldexp(row[i], 127 - scale)));
  }
}

}  // namespace

uint32_t row_bytes(RowFormat format, uint32_t n) {
  uint64_t bytes = 0;
  switch (format) {
    case RowFormat::f32:
      bytes = uint64_t{n} * 4;
      break;
    case RowFormat::bf16:
      bytes = uint64_t{n} * 2;
      break;
    case RowFormat::int8:
      bytes = uint64_t{n} + sizeof(float);
      break;
    case RowFormat::fp8_e4m3_e8m0:
      bytes = uint64_t{n} + (uint64_t{n} + kBlock - 1) / kBlock;
      break;
  }
  require(bytes <= UINT32_MAX, ErrorCode::corrupt, "a memory row of {} values is too long", n);
  return static_cast<uint32_t>(bytes);
}

void decode_row(RowFormat format, const std::byte* record, int64_t n, float* out) {
  decoder(format)(record, n, out);
}

void decode_row_plain(RowFormat format, const std::byte* record, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    switch (format) {
      case RowFormat::f32:
        out[i] = load_le<float>(record + 4 * i);
        break;
      case RowFormat::bf16:
        out[i] = bf16_to_f32(load_le<uint16_t>(record + 2 * i));
        break;
      case RowFormat::int8:
        out[i] = static_cast<float>(load_le<int8_t>(record + i)) * load_le<float>(record + n);
        break;
      case RowFormat::fp8_e4m3_e8m0:
        out[i] = e4m3_to_f32(load_le<uint8_t>(record + i)) *
                 e8m0_to_f32(load_le<uint8_t>(record + n + i / kBlock));
        break;
    }
  }
}

namespace {

void prefetch_record(const std::byte* record, uint32_t bytes) {
  for (uint32_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(record + byte);
  __builtin_prefetch(record + bytes - 1);  // a record need not start on a line
}

}  // namespace

void prefetch_rows(RowFormat format, std::span<const std::byte* const> records, int64_t n) {
  const uint32_t bytes = row_bytes(format, static_cast<uint32_t>(n));
  for (const std::byte* const record : records) prefetch_record(record, bytes);
}

void gather_rows(RowFormat format, std::span<const std::byte* const> records, int64_t n, float* out) {
  constexpr size_t kAhead = 4;  // rows; with 5 lines each more than the core's line buffers is no use
  const uint32_t bytes = row_bytes(format, static_cast<uint32_t>(n));
  const auto ask = [bytes](const std::byte* record) { prefetch_record(record, bytes); };
  const Decode decode = decoder(format);
  for (size_t i = 0; i < std::min(kAhead, records.size()); ++i) ask(records[i]);
  for (size_t i = 0; i < records.size(); ++i) {
    if (i + kAhead < records.size()) ask(records[i + kAhead]);
    decode(records[i], n, out + static_cast<int64_t>(i) * n);
  }
}

void encode_row(RowFormat format, const float* row, int64_t n, std::byte* record) {
  switch (format) {
    case RowFormat::f32:
      std::memcpy(record, row, static_cast<size_t>(n) * sizeof(float));
      break;
    case RowFormat::bf16:
      for (int64_t i = 0; i < n; ++i) {
        const uint16_t bits = f32_to_bf16(row[i]);
        std::memcpy(record + 2 * i, &bits, sizeof bits);
      }
      break;
    case RowFormat::int8:
      encode_int8(row, n, record);
      break;
    case RowFormat::fp8_e4m3_e8m0:
      encode_fp8(row, n, record);
      break;
  }
}

}  // namespace mneme
#endif

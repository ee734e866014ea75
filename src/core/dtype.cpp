#include "core/dtype.h"

#include <array>
#include <cctype>

#include "core/fail.h"

namespace mneme {
namespace {

constexpr std::array kTypes = {
    DTypeInfo{DType::f32, "F32", 1, 4, false},         DTypeInfo{DType::f16, "F16", 1, 2, false},
    DTypeInfo{DType::bf16, "BF16", 1, 2, false},       DTypeInfo{DType::f64, "F64", 1, 8, false},
    DTypeInfo{DType::i8, "I8", 1, 1, false},           DTypeInfo{DType::i16, "I16", 1, 2, false},
    DTypeInfo{DType::i32, "I32", 1, 4, false},         DTypeInfo{DType::i64, "I64", 1, 8, false},
    DTypeInfo{DType::f8_e4m3, "F8_E4M3", 1, 1, false}, DTypeInfo{DType::f8_e8m0, "F8_E8M0", 1, 1, false},
    DTypeInfo{DType::u8, "U8", 1, 1, false},           DTypeInfo{DType::q4_0, "Q4_0", 32, 18, true},
    DTypeInfo{DType::q4_1, "Q4_1", 32, 20, true},      DTypeInfo{DType::q5_0, "Q5_0", 32, 22, true},
    DTypeInfo{DType::q5_1, "Q5_1", 32, 24, true},      DTypeInfo{DType::q8_0, "Q8_0", 32, 34, true},
    DTypeInfo{DType::q2_k, "Q2_K", 256, 84, true},     DTypeInfo{DType::q3_k, "Q3_K", 256, 110, true},
    DTypeInfo{DType::q4_k, "Q4_K", 256, 144, true},    DTypeInfo{DType::q5_k, "Q5_K", 256, 176, true},
    DTypeInfo{DType::q6_k, "Q6_K", 256, 210, true},
};

// Every id that GGUF has assigned, so that an unreadable tensor can be named in the message.
constexpr std::array<std::string_view, 40> kGgufNames = {
    "F32",      "F16",      "Q4_0",    "Q4_1",  "Q4_2",       "Q4_3",       "Q5_0",       "Q5_1",
    "Q8_0",     "Q8_1",     "Q2_K",    "Q3_K",  "Q4_K",       "Q5_K",       "Q6_K",       "Q8_K",
    "IQ2_XXS",  "IQ2_XS",   "IQ3_XXS", "IQ1_S", "IQ4_NL",     "IQ3_S",      "IQ2_S",      "IQ4_XS",
    "I8",       "I16",      "I32",     "I64",   "F64",        "IQ1_M",      "BF16",       "Q4_0_4_4",
    "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4"};

}  // namespace

std::optional<DTypeInfo> find_dtype(uint32_t gguf_id) noexcept {
  for (const auto& info : kTypes)
    if (static_cast<uint32_t>(info.type) == gguf_id && gguf_id < kGgufNames.size()) return info;
  return std::nullopt;
}

const DTypeInfo& dtype_info(DType type) {
  for (const auto& info : kTypes)
    if (info.type == type) return info;
  fail(ErrorCode::unsupported, "tensor type {} is not one that this version reads",
       static_cast<uint32_t>(type));
}

std::optional<DType> dtype_from_name(std::string_view name) noexcept {
  for (const auto& info : kTypes) {
    if (info.name.size() != name.size()) continue;
    bool same = true;
    for (size_t i = 0; i < name.size(); ++i)
      same &= std::toupper(static_cast<unsigned char>(name[i])) == static_cast<unsigned char>(info.name[i]);
    if (same) return info.type;
  }
  return std::nullopt;
}

std::string_view gguf_type_name(uint32_t gguf_id) noexcept {
  return gguf_id < kGgufNames.size() ? kGgufNames[gguf_id] : std::string_view("unknown");
}

}  // namespace mneme

// JSON and limits of EngramTableConfig and EngramModuleConfig. The schema, in prose, is docs/config.md; a
// pack's header, a model's config and `mneme memory rows --config` all read it here.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "core/json.h"
#include "core/json_fields.h"
#include "mneme/engram_config.h"

namespace mneme {

/// The ranges a config may have: far above any published table, low enough that row ids, byte counts and
/// products of any two of them fit in 63 bits and that a hostile file cannot ask for hours of prime search.
namespace engram_limits {
inline constexpr uint32_t kMaxVocab = 1u << 24;              // classes
inline constexpr uint32_t kMaxNgram = 16;                    // longest order
inline constexpr uint32_t kMaxHeads = 256;                   // of an order
inline constexpr uint32_t kMaxHeadDim = 1u << 16;            // values in a row
inline constexpr uint32_t kMaxEmbedding = 1u << 24;          // concatenated rows
inline constexpr uint64_t kMaxBaseRows = uint64_t{1} << 40;  // of a head
inline constexpr uint32_t kMaxLayers = 4096;                 // of a table
inline constexpr uint32_t kMaxLayerId = 1u << 20;
inline constexpr uint64_t kMaxPrimes = 1u << 16;  // of a table: layers * orders * heads
inline constexpr uint64_t kMaxSeed = uint64_t{1} << 62;
inline constexpr uint64_t kMaxRowsMultiple = 1u << 20;
inline constexpr uint64_t kMaxTableBytes = uint64_t{1} << 60;
inline constexpr uint32_t kMaxKernel = 64;       // taps of the convolution
inline constexpr uint32_t kMaxConvReach = 4096;  // positions that it looks back
inline constexpr uint32_t kMaxNameBytes = 1024;  // of a table's name and of its file
}  // namespace engram_limits

/// Words of the JSON schema: "f32", "bf16", "int8", "fp8_e4m3_e8m0" and so on.
std::string_view to_string(RowFormat format) noexcept;
std::string_view to_string(EngramTableConfig::Hash hash) noexcept;
std::string_view to_string(EngramTableConfig::Boundary boundary) noexcept;
std::string_view to_string(EngramModuleConfig::SignOfZero sign) noexcept;
/// Throws Error(invalid_argument) that lists the words there are; `where` names the place in messages.
RowFormat row_format_from(std::string_view word, std::string_view where);

/// Throws Error(invalid_argument) that names the first field, as "where.field", which is out of range or
/// contradicts another.
void validate(const EngramTableConfig& table, const std::string& where);
/// The module by itself; whether its table exists and has its layer_id is ModelConfig's to check.
void validate(const EngramModuleConfig& module, const std::string& where);

/// Reads every field, refuses unknown ones, and validates. Errors carry the code of `fields`, or
/// invalid_argument from validate().
EngramTableConfig read_engram_table(JsonFields fields);
EngramModuleConfig read_engram_module(JsonFields fields);
/// A whole document; `what` names it in messages. Throws also Error(corrupt) for malformed JSON.
EngramTableConfig engram_table_from_json(std::string_view text, std::string_view what);

/// Deterministic: equal configs give equal text. What decides rows is always written, rarer fields only if
/// they differ from their default.
OrderedJson engram_table_json(const EngramTableConfig& table);
OrderedJson engram_module_json(const EngramModuleConfig& module);

}  // namespace mneme

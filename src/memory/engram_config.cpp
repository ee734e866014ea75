#include "memory/engram_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include "core/checked.h"
#include "simd/rows.h"

namespace mneme {
namespace {

using namespace engram_limits;

template <class E, size_t N>
using Words = std::array<std::pair<E, std::string_view>, N>;
using Hash = EngramTableConfig::Hash;
using Boundary = EngramTableConfig::Boundary;
using SignOfZero = EngramModuleConfig::SignOfZero;

constexpr Words<RowFormat, 4> kFormats{{{RowFormat::f32, "f32"},
                                        {RowFormat::bf16, "bf16"},
                                        {RowFormat::int8, "int8"},
                                        {RowFormat::fp8_e4m3_e8m0, "fp8_e4m3_e8m0"}}};
constexpr Words<Hash, 2> kHashes{{{Hash::pcg64, "pcg64"}, {Hash::splitmix64, "splitmix64"}}};
constexpr Words<Boundary, 3> kBoundaries{
    {{Boundary::none, "none"}, {Boundary::reset, "reset"}, {Boundary::eos, "eos"}}};
constexpr Words<SignOfZero, 2> kSigns{{{SignOfZero::zero, "zero"}, {SignOfZero::copysign, "copysign"}}};

template <class E, size_t N>
std::string_view word_of(const Words<E, N>& words, E value) noexcept {
  for (const auto& [candidate, word] : words)
    if (candidate == value) return word;
  return "?";
}

template <class E, size_t N>
E value_of(const Words<E, N>& words, std::string_view text, std::string_view where) {
  std::string allowed;
  for (const auto& [value, word] : words) {
    if (word == text) return value;
    allowed += (allowed.empty() ? "" : ", ") + std::string(word);
  }
  fail(ErrorCode::invalid_argument, "{} is \"{}\", but must be one of: {}", where, text.substr(0, 64),
       allowed);
}

template <class E, size_t N>
void read_word(JsonFields& fields, const char* name, const Words<E, N>& words, E& out) {
  if (fields.has(name)) out = value_of(words, fields.string(name), fields.where(name));
}

void in_range(uint64_t value, uint64_t least, uint64_t most, const std::string& where) {
  require(value >= least && value <= most, ErrorCode::invalid_argument,
          "{} is {}, but must be a whole number from {} to {}", where, value, least, most);
}

void check_eps(double eps, const std::string& where) {
  require(std::isfinite(eps) && eps > 0 && eps <= 1, ErrorCode::invalid_argument,
          "{} is {}, but must be a number above 0 and at most 1", where, eps);
}

void check_class(int64_t id, const EngramTableConfig& table, const std::string& where) {
  require(id >= 0 && id < int64_t{table.compressed_vocab}, ErrorCode::invalid_argument,
          "{} is {}, but must be a class id from 0 to {}", where, id, int64_t{table.compressed_vocab} - 1);
}

void check_layers(const EngramTableConfig& table, const std::string& where) {
  in_range(table.layer_ids.size(), 1, kMaxLayers, where + ".layer_ids has a length that");
  std::set<uint32_t> seen;
  for (const uint32_t id : table.layer_ids) {
    in_range(id, 0, kMaxLayerId, where + ".layer_ids has an entry that");
    require(seen.insert(id).second, ErrorCode::invalid_argument, "{}.layer_ids lists {} twice", where, id);
  }
}

// Primes lie close above their base: all of a table's within 2^16 * 64 (the mean gap below 2^41 is 28).
void check_size(const EngramTableConfig& table, const std::string& where) {
  const uint64_t primes = uint64_t{table.rows_per_token()} * table.layer_ids.size();
  require(primes <= kMaxPrimes, ErrorCode::invalid_argument,
          "{} has {} layers of {} heads in all, which need {} primes; at most {} are possible", where,
          table.layer_ids.size(), table.rows_per_token(), primes, kMaxPrimes);
  const uint64_t largest = *std::max_element(table.base_rows.begin(), table.base_rows.end()) + (1u << 22);
  const uint64_t rows = checked_add(checked_mul(largest, primes, "rows of a memory table"),
                                    table.rows_multiple * table.layer_ids.size(), "rows of a memory table");
  const uint64_t row_bytes = mneme::row_bytes(table.format, table.head_dim);
  require(rows <= kMaxTableBytes / row_bytes, ErrorCode::invalid_argument,
          "{} describes about {} rows of {} bytes; a table may have at most {} bytes", where, rows, row_bytes,
          kMaxTableBytes);
}

template <class T>
void put(OrderedJson& object, const char* name, const T& value, const T& omitted) {
  if (!(value == omitted)) object[name] = value;
}

}  // namespace

std::string_view to_string(RowFormat format) noexcept {
  return word_of(kFormats, format);
}
std::string_view to_string(Hash hash) noexcept {
  return word_of(kHashes, hash);
}
std::string_view to_string(Boundary boundary) noexcept {
  return word_of(kBoundaries, boundary);
}
std::string_view to_string(SignOfZero sign) noexcept {
  return word_of(kSigns, sign);
}
RowFormat row_format_from(std::string_view word, std::string_view where) {
  return value_of(kFormats, word, where);
}

void validate(const EngramTableConfig& table, const std::string& where) {
  in_range(table.compressed_vocab, 1, kMaxVocab, where + ".compressed_vocab");
  check_class(table.pad_id, table, where + ".pad_id");
  in_range(table.max_ngram, 2, kMaxNgram, where + ".max_ngram");
  in_range(table.heads, 1, kMaxHeads, where + ".heads");
  in_range(table.head_dim, 1, kMaxHeadDim, where + ".head_dim");
  require(table.embedding_dim() <= kMaxEmbedding, ErrorCode::invalid_argument,
          "{} makes {} values a token ({} rows of {}); at most {} are possible", where, table.embedding_dim(),
          table.rows_per_token(), table.head_dim, kMaxEmbedding);
  require(table.base_rows.size() == table.max_ngram - 1, ErrorCode::invalid_argument,
          "{}.base_rows has {} entries, but max_ngram {} needs {}: one for each order from 2", where,
          table.base_rows.size(), table.max_ngram, table.max_ngram - 1);
  for (const uint64_t rows : table.base_rows)
    in_range(rows, 2, kMaxBaseRows, where + ".base_rows has an entry that");
  check_layers(table, where);
  in_range(table.seed, 0, kMaxSeed, where + ".seed");
  in_range(table.rows_multiple, 1, kMaxRowsMultiple, where + ".rows_multiple");
  require(
      table.format != RowFormat::fp8_e4m3_e8m0 || table.head_dim % 32 == 0, ErrorCode::invalid_argument,
      "{}.head_dim is {}, but rows of fp8_e4m3_e8m0 have one scale for 32 values: make it a multiple of 32",
      where, table.head_dim);
  if (table.boundary != Boundary::none)
    check_class(table.boundary_id, table, where + ".boundary_id");
  else
    require(table.boundary_id == -1, ErrorCode::invalid_argument,
            "{}.boundary_id is {}, but boundary is \"none\"", where, table.boundary_id);
  require(table.file.size() <= kMaxNameBytes, ErrorCode::invalid_argument,
          "{}.file has {} bytes, but may have at most {}", where, table.file.size(), kMaxNameBytes);
  check_size(table, where);
}

void validate(const EngramModuleConfig& module, const std::string& where) {
  require(!module.table.empty() && module.table.size() <= kMaxNameBytes, ErrorCode::invalid_argument,
          "{}.table must be a name of 1 to {} bytes", where, kMaxNameBytes);
  in_range(module.layer_id, 0, kMaxLayerId, where + ".layer_id");
  check_eps(module.eps, where + ".eps");
  require(std::isfinite(module.norm_offset) && std::abs(module.norm_offset) <= 1e6,
          ErrorCode::invalid_argument, "{}.norm_offset is {}, but must be a number from -1e6 to 1e6", where,
          module.norm_offset);
  if (!module.conv) return;
  in_range(module.conv->kernel, 1, kMaxKernel, where + ".conv.kernel");
  in_range(module.conv->dilation, 1, kMaxConvReach, where + ".conv.dilation");
  const uint64_t reach = uint64_t{module.conv->kernel - 1} * module.conv->dilation;
  require(reach <= kMaxConvReach, ErrorCode::invalid_argument,
          "{}.conv looks back {} positions, but may look back at most {}", where, reach, kMaxConvReach);
  check_eps(module.conv->eps, where + ".conv.eps");
}

EngramTableConfig read_engram_table(JsonFields fields) {
  EngramTableConfig out;
  out.file = fields.string("file", out.file);
  read_word(fields, "hash", kHashes, out.hash);
  out.seed = fields.u64("seed", 0, kMaxSeed, out.seed);
  out.compressed_vocab = fields.u32("compressed_vocab", 1, kMaxVocab);
  out.raw_ids = fields.boolean("raw_ids", out.raw_ids);
  out.pad_id = fields.u32("pad_id", 0, kMaxVocab, 0);
  out.max_ngram = fields.u32("max_ngram", 2, kMaxNgram, out.max_ngram);
  out.heads = fields.u32("heads", 1, kMaxHeads, out.heads);
  out.head_dim = fields.u32("head_dim", 1, kMaxHeadDim, out.head_dim);
  out.base_rows = fields.u64s("base_rows", 2, kMaxBaseRows, kMaxNgram);
  for (const uint64_t id : fields.u64s("layer_ids", 0, kMaxLayerId, kMaxLayers))
    out.layer_ids.push_back(static_cast<uint32_t>(id));
  out.rows_multiple = fields.u64("rows_multiple", 1, kMaxRowsMultiple, out.rows_multiple);
  read_word(fields, "boundary", kBoundaries, out.boundary);
  if (fields.has("boundary_id")) out.boundary_id = fields.u32("boundary_id", 0, kMaxVocab);
  read_word(fields, "format", kFormats, out.format);
  fields.finish();
  validate(out, fields.path().empty() ? "table" : fields.path());
  return out;
}

EngramModuleConfig read_engram_module(JsonFields fields) {
  EngramModuleConfig out;
  out.table = fields.string("table");
  out.layer_id = fields.u32("layer_id", 0, kMaxLayerId);
  out.signed_sqrt = fields.boolean("signed_sqrt", out.signed_sqrt);
  read_word(fields, "sign0", kSigns, out.sign0);
  out.bias = fields.boolean("bias", out.bias);
  out.eps = fields.number("eps", 0, 1, out.eps);
  out.norm_offset = fields.number("norm_offset", -1e6, 1e6, out.norm_offset);
  if (fields.has("conv")) {
    JsonFields conv = fields.object("conv");
    EngramConvConfig& c = out.conv.emplace();
    c.kernel = conv.u32("kernel", 1, kMaxKernel, c.kernel);
    c.dilation = conv.u32("dilation", 1, kMaxConvReach, c.dilation);
    c.eps = conv.number("eps", 0, 1, c.eps);
    conv.finish();
  }
  fields.finish();
  validate(out, fields.path().empty() ? "module" : fields.path());
  return out;
}

EngramTableConfig engram_table_from_json(std::string_view text, std::string_view what) {
  const Json json = parse_json(text, what, 8);
  return read_engram_table(JsonFields(json, "", ErrorCode::invalid_argument));
}

OrderedJson engram_table_json(const EngramTableConfig& table) {
  const EngramTableConfig omitted;
  OrderedJson out = OrderedJson::object();
  put(out, "file", table.file, omitted.file);
  out["hash"] = to_string(table.hash);
  if (table.seed <= (uint64_t{1} << 53))
    out["seed"] = table.seed;
  else
    out["seed"] = std::to_string(table.seed);  // a JSON number is a double to many readers
  out["compressed_vocab"] = table.compressed_vocab;
  put(out, "raw_ids", table.raw_ids, omitted.raw_ids);
  out["pad_id"] = table.pad_id;
  out["max_ngram"] = table.max_ngram;
  out["heads"] = table.heads;
  out["head_dim"] = table.head_dim;
  out["base_rows"] = table.base_rows;
  out["layer_ids"] = table.layer_ids;
  put(out, "rows_multiple", table.rows_multiple, omitted.rows_multiple);
  if (table.boundary != Boundary::none) {
    out["boundary"] = to_string(table.boundary);
    out["boundary_id"] = table.boundary_id;
  }
  out["format"] = to_string(table.format);
  return out;
}

OrderedJson engram_module_json(const EngramModuleConfig& module) {
  const EngramModuleConfig omitted;
  OrderedJson out = {{"table", module.table}, {"layer_id", module.layer_id}};
  put(out, "signed_sqrt", module.signed_sqrt, omitted.signed_sqrt);
  if (module.sign0 != omitted.sign0) out["sign0"] = to_string(module.sign0);
  put(out, "bias", module.bias, omitted.bias);
  put(out, "eps", module.eps, omitted.eps);
  put(out, "norm_offset", module.norm_offset, omitted.norm_offset);
  if (module.conv)
    out["conv"] = {
        {"kernel", module.conv->kernel}, {"dilation", module.conv->dilation}, {"eps", module.conv->eps}};
  return out;
}

}  // namespace mneme

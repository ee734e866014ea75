#include "memory/pack_description.h"

#include <algorithm>
#include <charconv>
#include <unordered_set>

#include "core/checked.h"
#include "core/json_fields.h"
#include "memory/engram_config.h"
#include "memory/pack_header.h"

namespace mneme {
namespace {

constexpr size_t kMaxTensors = 1 << 16;
constexpr uint64_t kMaxDimension = uint64_t{1} << 40;

// 64-bit numbers go as text: other programs read JSON numbers as doubles.
OrderedJson texts(std::span<const uint64_t> values) {
  OrderedJson out = OrderedJson::array();
  for (const uint64_t value : values) out.push_back(std::to_string(value));
  return out;
}

uint64_t number_of(const Json& value, const std::string& where) {
  uint64_t out = 0;
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  require(!text.empty() && error == std::errc() && end == text.data() + text.size(), ErrorCode::corrupt,
          "{} must be a string of digits", where);
  return out;
}

std::vector<uint64_t> numbers_of(const Json& value, const std::string& where) {
  require(value.is_array() && value.size() <= 4096, ErrorCode::corrupt,
          "{} must be a list of strings of digits", where);
  std::vector<uint64_t> out;
  for (const Json& item : value) out.push_back(number_of(item, where));
  return out;
}

// What the file froze must be what this program derives: then its rows were made by the same hash.
void check_derived(JsonFields fields, const EngramHash& hash, const std::string& name) {
  const Json* const multipliers = fields.find("multipliers");
  const Json* const sums = fields.find("prime_sums");
  fields.finish();
  require(multipliers != nullptr && multipliers->is_array() && multipliers->size() == hash.layers() &&
              sums != nullptr,
          ErrorCode::corrupt, "{}: derived.multipliers and derived.prime_sums must be lists of {} layers",
          name, hash.layers());
  const std::vector<uint64_t> stored_sums = numbers_of(*sums, name + ": derived.prime_sums");
  require(stored_sums.size() == hash.layers(), ErrorCode::corrupt,
          "{}: derived.prime_sums must have {} values", name, hash.layers());
  for (size_t layer = 0; layer < hash.layers(); ++layer) {
    const uint32_t id = hash.config().layer_ids[layer];
    const auto stored = numbers_of((*multipliers)[layer], name + ": derived.multipliers");
    require(std::equal(stored.begin(), stored.end(), hash.multipliers(layer).begin(),
                       hash.multipliers(layer).end()),
            ErrorCode::mismatch,
            "{}: the multipliers of layer {} are not those of its config (vocabulary {}, seed {}); its rows "
            "belong to "
            "another hash",
            name, id, hash.config().compressed_vocab, hash.config().seed);
    require(stored_sums[layer] == hash.prime_sum(layer), ErrorCode::mismatch,
            "{}: the primes of layer {} sum up to {}, but those of its config to {}; its rows belong to "
            "another hash",
            name, id, stored_sums[layer], hash.prime_sum(layer));
  }
}

PackEntry read_entry(JsonFields fields, uint64_t tensor_bytes) {
  PackEntry entry;
  entry.info.name = fields.string("name");
  const std::string type = fields.string("type");
  const auto dtype = dtype_from_name(type);
  require(dtype.has_value(), ErrorCode::unsupported, "{}: tensors of type \"{}\" are unknown", fields.path(),
          type);
  entry.info.type = *dtype;
  entry.info.shape = fields.u64s("shape", 1, kMaxDimension, 4);
  entry.offset = fields.u64("offset", 0, tensor_bytes);
  entry.info.bytes = fields.u64("bytes", 0, tensor_bytes);
  const std::string sum = fields.string("xxh3");
  const auto [end, error] = std::from_chars(sum.data(), sum.data() + sum.size(), entry.checksum, 16);
  require(sum.size() == 16 && error == std::errc() && end == sum.data() + 16, ErrorCode::corrupt,
          "{}.xxh3 must be 16 hexadecimal digits", fields.path());
  fields.finish();
  uint64_t values = 1;
  for (const uint64_t d : entry.info.shape) values = checked_mul(values, d, "shape of a tensor");
  const DTypeInfo& info = dtype_info(*dtype);
  const uint64_t row = entry.info.shape.empty() ? 1 : entry.info.shape.back();
  require(row % info.block_size == 0 && values / info.block_size * info.block_bytes == entry.info.bytes,
          ErrorCode::corrupt, "{}: {} bytes do not hold {} values of type {}", fields.path(),
          entry.info.bytes, values, info.name);
  require(entry.offset % kPackAlignment == 0 && entry.info.bytes <= tensor_bytes - entry.offset,
          ErrorCode::corrupt, "{}: \"{}\" lies outside the tensor section", fields.path(), entry.info.name);
  return entry;
}

std::vector<PackEntry> read_entries(const Json* list, uint64_t tensor_bytes, const std::string& name) {
  std::vector<PackEntry> out;
  if (list == nullptr) return out;
  require(list->is_array() && list->size() <= kMaxTensors, ErrorCode::corrupt,
          "{}: tensors must be a list of at most {}", name, kMaxTensors);
  std::unordered_set<std::string> names;
  uint64_t end = 0;
  for (size_t i = 0; i < list->size(); ++i) {
    out.push_back(read_entry(
        JsonFields((*list)[i], fmt::format("{}: tensors[{}]", name, i), ErrorCode::corrupt), tensor_bytes));
    require(names.insert(out.back().info.name).second, ErrorCode::corrupt, "{}: two tensors named \"{}\"",
            name, out.back().info.name);
    require(out.back().offset >= end, ErrorCode::corrupt, "{}: tensor \"{}\" overlaps the one before", name,
            out.back().info.name);
    end = out.back().offset + out.back().info.bytes;
  }
  return out;
}

}  // namespace

std::string pack_description_json(const PackDescription& description, const EngramHash& hash,
                                  const std::vector<PackEntry>& tensors) {
  OrderedJson out{
      {"pack", kPackVersion}, {"source", description.source}, {"model_hash", description.model_hash}};
  out["table"] = engram_table_json(description.table);
  OrderedJson multipliers = OrderedJson::array();
  std::vector<uint64_t> sums;
  for (size_t layer = 0; layer < hash.layers(); ++layer) {
    multipliers.push_back(texts(hash.multipliers(layer)));
    sums.push_back(hash.prime_sum(layer));
  }
  out["derived"] = {{"multipliers", multipliers}, {"prime_sums", texts(sums)}};
  out["modules"] = OrderedJson::array();
  for (const EngramModuleConfig& module : description.modules)
    out["modules"].push_back(engram_module_json(module));
  out["tensors"] = OrderedJson::array();
  for (const PackEntry& entry : tensors)
    out["tensors"].push_back({{"name", entry.info.name},
                              {"type", dtype_info(entry.info.type).name},
                              {"shape", entry.info.shape},
                              {"offset", entry.offset},
                              {"bytes", entry.info.bytes},
                              {"xxh3", fmt::format("{:016x}", entry.checksum)}});
  return out.dump();
}

void check_modules(const PackDescription& description, const std::string& name) {
  std::vector<uint32_t> seen;
  for (const EngramModuleConfig& module : description.modules) {
    const auto& ids = description.table.layer_ids;
    require(std::find(ids.begin(), ids.end(), module.layer_id) != ids.end(), ErrorCode::invalid_argument,
            "{}: a module of layer_id {}, which its table does not have", name, module.layer_id);
    require(std::find(seen.begin(), seen.end(), module.layer_id) == seen.end(), ErrorCode::invalid_argument,
            "{}: two modules of layer_id {}", name, module.layer_id);
    seen.push_back(module.layer_id);
  }
}

ParsedDescription parse_pack_description(std::string_view json, uint64_t tensor_bytes,
                                         const std::string& name) {
  const Json document = parse_json(json, name);
  JsonFields fields(document, name + ": description", ErrorCode::corrupt);
  ParsedDescription out;
  fields.u32("pack", kPackVersion, kPackVersion);
  out.description.source = fields.string("source", "");
  out.description.model_hash = fields.string("model_hash", "");
  out.description.table = read_engram_table(fields.object("table"));
  const EngramHash hash(out.description.table);
  out.rows = hash.rows();
  check_derived(fields.object("derived"), hash, name);
  if (const Json* const modules = fields.find("modules")) {
    require(modules->is_array() && modules->size() <= out.description.table.layer_ids.size(),
            ErrorCode::corrupt, "{}: modules must be a list of at most {}", name,
            out.description.table.layer_ids.size());
    for (size_t i = 0; i < modules->size(); ++i)
      out.description.modules.push_back(read_engram_module(
          JsonFields((*modules)[i], fmt::format("{}: modules[{}]", name, i), ErrorCode::corrupt)));
  }
  out.tensors = read_entries(fields.find("tensors"), tensor_bytes, name);
  fields.finish();
  check_modules(out.description, name);
  return out;
}

}  // namespace mneme

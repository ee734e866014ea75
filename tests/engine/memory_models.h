// The tiny Llama with two Engram modules that tools/make_engram_model_golden.py computed: its pack is made
// from the golden file when a test asks for it.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/fail.h"
#include "core/sha256.h"
#include "engine/tiny_models.h"
#include "memory/engram_config.h"
#include "memory/pack.h"
#include "memory/token_map.h"
#include "model/load.h"
#include "scratch.h"

namespace mneme {

struct MemoryGolden {
  EngramTableConfig table;
  std::vector<EngramModuleConfig> modules;
  std::vector<TokenId> ids;
  std::map<std::string, std::vector<float>> values;  // tensors, "rows" and "logits"
  std::map<std::string, std::vector<uint64_t>> shapes;
};

inline MemoryGolden load_memory_golden() {
  const std::string stem = std::string(MNEME_TEST_DATA) + "/engram/model_golden";
  const Json json = parse_json(read_text_file(stem + ".json"), "model_golden.json");
  MemoryGolden golden;
  golden.table = engram_table_from_json(json.at("table").dump(), "table");
  for (Json module : json.at("modules")) {
    module["table"] = "memory";
    golden.modules.push_back(read_engram_module(JsonFields(module, "module", ErrorCode::corrupt)));
  }
  golden.ids = json.at("ids").get<std::vector<TokenId>>();
  const MappedFile file(stem + ".f32", LoadMode::read);
  size_t at = 0;
  for (const Json& entry : json.at("tensors")) {
    const auto name = entry.at("name").get<std::string>();
    const auto shape = entry.at("shape").get<std::vector<uint64_t>>();
    size_t count = 1;
    for (const uint64_t dim : shape) count *= dim;
    auto& values = golden.values[name];
    values.resize(count);
    std::memcpy(values.data(), file.bytes().subspan(at, count * 4).data(), count * 4);
    at += count * 4;
    golden.shapes[name] = shape;
  }
  return golden;
}

/// What is put into a pack of the golden model; tests change it before it is written.
inline PackToWrite memory_pack(const MemoryGolden& golden, const Tokenizer& tokenizer,
                               bool with_modules = true) {
  PackToWrite pack;
  pack.description.table = golden.table;
  pack.token_map = TokenMap::build(tokenizer).serialize();
  const std::vector<float>& rows = golden.values.at("rows");
  const uint64_t width = golden.table.head_dim;
  pack.rows = [&rows, width](uint64_t first, uint64_t count, std::byte* out) {
    std::memcpy(out, rows.data() + first * width, count * width * sizeof(float));
  };
  if (!with_modules) return pack;
  pack.description.modules = golden.modules;
  for (const auto& [name, values] : golden.values)
    if (name.starts_with("blk."))
      pack.tensors.push_back({{name, DType::f32, golden.shapes.at(name), values.size() * sizeof(float)},
                              std::as_bytes(std::span(values))});
  return pack;
}

/// The golden pack in a file of this process.
inline const fs::path& golden_pack() {
  static const ScratchFolder folder;
  static const fs::path path = [] {
    const MemoryGolden golden = load_memory_golden();
    const auto plain = load_tiny("llama");
    PackToWrite pack = memory_pack(golden, plain->tokenizer());
    pack.description.model_hash = plain->hash();
    write_pack(folder / "golden.engram", pack);
    return folder / "golden.engram";
  }();
  return path;
}

inline std::shared_ptr<const Model> load_with_memory(const fs::path& pack, const std::string& name = "llama",
                                                     LoadOptions options = {}) {
  options.memory.push_back({pack, Placement::ram});
  return load_tiny(name, options);
}

}  // namespace mneme

#include "memory/rows_in_place.h"

#include "core/fail.h"
#include "core/json_fields.h"
#include "core/sha256.h"
#include "files/gguf.h"
#include "files/safetensors.h"
#include "memory/engram_config.h"
#include "memory/pack_description.h"
#include "memory/row_source.h"

namespace mneme {
namespace {

constexpr const char* kNameInFolder = "engram.json";
constexpr uint64_t kMaxBytes = uint64_t{1} << 20;

std::shared_ptr<const TensorSource> open_tensors(const fs::path& path) {
  if (fs::is_directory(path)) return open_safetensors_folder(path);
  if (path.extension() == ".gguf") return GgufFile::open(path);
  return open_safetensors(path);
}

// What makes another table of it: the config, and where which rows lie. 200 GB of rows are not read for it.
std::string fingerprint_of(const EngramTableConfig& table, const RowTensorNames& names,
                           const RowLayout& rows) {
  Sha256 sum;
  sum.update(fmt::format("{}\n{}\n{}\n", engram_table_json(table).dump(), names.weight, names.scale));
  for (const RowSegment& segment : rows.segments)
    for (const RowPart& part : segment.parts)
      sum.update(fmt::format("{} {} {} {} {}\n", segment.rows, part.path.filename().string(),
                             fs::file_size(part.path), part.offset, part.bytes));
  return sum.hex();
}

}  // namespace

bool names_rows_in_place(const fs::path& path) {
  std::error_code error;
  return path.extension() == ".json" || fs::is_directory(path, error);
}

RowsInPlace open_rows_in_place(const fs::path& path) {
  RowsInPlace out;
  std::error_code error;
  out.path = fs::is_directory(path, error) ? path / kNameInFolder : path;
  const std::string name = out.path.string();
  require(fs::exists(out.path, error), ErrorCode::not_found,
          "there is no {}; it would say which tensors hold the rows of a memory (docs/memory.md)", name);
  const Json json = parse_json(read_text_file(out.path, kMaxBytes), name);
  JsonFields fields(json, name, ErrorCode::invalid_argument);
  out.description.table = read_engram_table(fields.object("table"));
  if (const Json* const modules = fields.find("modules"); modules != nullptr) {
    require(modules->is_array(), ErrorCode::invalid_argument, "{} must be a list", fields.where("modules"));
    for (const Json& module : *modules)
      out.description.modules.push_back(
          read_engram_module(JsonFields(module, fields.where("modules"), ErrorCode::invalid_argument)));
  }
  JsonFields rows = fields.object("rows");
  const std::string from = rows.string("from");
  const RowTensorNames names{rows.string("weight"), rows.string("scale", "")};
  rows.finish();
  const std::string tensors = fields.string("tensors", "");
  fields.finish();
  check_modules(out.description, name);
  require(tensors.empty() == out.description.modules.empty(), ErrorCode::invalid_argument,
          "{}: \"modules\" and \"tensors\", the file with their weights, go together", name);

  const EngramHash hash(out.description.table);
  const fs::path folder = out.path.parent_path();
  out.rows = checkpoint_layout(hash, folder / from, names);
  out.rows.path = out.path;
  out.rows.fingerprint = fingerprint_of(out.description.table, names, out.rows);
  out.row_count = hash.rows();
  out.description.source = fmt::format("{}: {}", from, names.weight);
  if (!tensors.empty()) out.tensors = open_tensors(folder / tensors);
  return out;
}

}  // namespace mneme

#include "train/blocks/model_files.h"

#include <cstring>

#include "core/fail.h"
#include "core/json.h"
#include "files/safetensors.h"
#include "memory/engram_hash.h"
#include "memory/pack.h"
#include "mneme/memory.h"
#include "model/checkpoint.h"
#include "model/import_hf.h"
#include "model/tensor_names.h"
#include "simd/blocks.h"
#include "simd/rows.h"

namespace mneme::train {
namespace {

constexpr uint64_t kRowsAtATime = 4096;

Bytes bytes_of(const Tensor& dense) {
  return std::as_bytes(std::span(dense.data_ptr<float>(), static_cast<size_t>(dense.numel())));
}

Tensor on_cpu(const Tensor& tensor) {
  return tensor.detach().to(at::kCPU).to(at::kFloat).contiguous();
}

std::vector<int64_t> sizes_of(const std::vector<uint64_t>& shape) {
  return {shape.begin(), shape.end()};
}

}  // namespace

void save_model(const ModelConfig& config, const Parameters& parameters, const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  require(fs::is_directory(folder), ErrorCode::io, "cannot create the folder {}: {}", folder.string(),
          error ? error.message() : "a file of that name exists");
  std::vector<SafetensorToWrite> tensors;
  for (const std::string& name : parameters.names()) {
    const Tensor& value = parameters.at(name);
    TensorInfo info{hf_tensor_name(config, name), DType::f32, {}, 0};
    for (const int64_t size : value.sizes()) info.shape.push_back(static_cast<uint64_t>(size));
    info.bytes = static_cast<uint64_t>(value.numel()) * sizeof(float);
    tensors.push_back({info, [&value](AtomicFile& file) { file.write(bytes_of(on_cpu(value))); }});
  }
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  const OrderedJson json = {{"model_type", "mneme"},
                            {"torch_dtype", "float32"},
                            {kHfConfigField, OrderedJson::parse(config.to_json())}};
  AtomicFile file(folder / "config.json");
  file.write(json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
  file.commit();
}

TrainedModel load_model(const fs::path& path, at::Device device) {
  const Checkpoint checkpoint = open_checkpoint(path);
  TrainedModel out{checkpoint.config(), {}};
  for (const ExpectedTensor& expected : expected_tensors(out.config)) {
    const TensorInfo& info = checkpoint.at(expected.name);
    Tensor value = at::empty(sizes_of(expected.shape), at::kFloat);
    dequantize_row(info.type, checkpoint.tensors().data(info).data(), value.data_ptr<float>(), info.values());
    checkpoint.tensors().release(info);
    require(at::isfinite(value).all().item<bool>(), ErrorCode::corrupt,
            "{}: tensor {} holds a value that is not finite", path.string(), info.name);
    out.parameters.add(expected.name, value.to(device));
  }
  return out;
}

void save_table(const ModelConfig& config, const std::string& name, const RowReader& rows,
                const TokenMap* map, const fs::path& folder) {
  const auto found = config.tables.find(name);
  require(found != config.tables.end(), ErrorCode::not_found, "the config has no table \"{}\"", name);
  const fs::path file = found->second.file;
  require(!file.empty() && file == file.filename(), ErrorCode::invalid_argument,
          "tables.{}.file is \"{}\"; to be saved beside the model it must be a file name", name,
          file.string());
  PackToWrite pack;
  pack.description.table = found->second;
  pack.description.table.file.clear();
  require(found->second.raw_ids == (map == nullptr), ErrorCode::invalid_argument,
          "table \"{}\" {} a token map", name, map ? "has raw ids and must not be given" : "needs");
  if (map) pack.token_map = map->serialize();
  const RowFormat format = found->second.format;
  const uint32_t width = found->second.head_dim, record = row_bytes(format, width);
  pack.rows = [&](uint64_t first, uint64_t count, std::byte* out) {
    const Tensor values = rows(first, count);
    for (uint64_t i = 0; i < count; ++i)
      encode_row(format, values.data_ptr<float>() + i * width, width, out + i * record);
  };
  write_pack(folder / file, pack);
}

void save_table(const ModelConfig& config, const std::string& name, const RowTable& table,
                const TokenMap* map, const fs::path& folder) {
  if (const auto found = config.tables.find(name); found != config.tables.end()) {
    const EngramHash hash(found->second);
    require(hash.rows() == table.rows() && found->second.head_dim == table.head_dim(), ErrorCode::mismatch,
            "table \"{}\" has {} rows of {} values, but its config asks for {} of {}", name, table.rows(),
            table.head_dim(), hash.rows(), found->second.head_dim);
  }
  const auto part = [&](uint64_t first, uint64_t count) {
    return on_cpu(table.values().narrow(0, static_cast<int64_t>(first), static_cast<int64_t>(count)));
  };
  save_table(config, name, part, map, folder);
}

namespace {

/// All rows of a pack that is open, in order.
void for_rows(const Pack& pack, const fs::path& path,
              const std::function<void(uint64_t first, const Tensor& rows)>& sink) {
  const EngramTableConfig& config = pack.description().table;
  MemoryOptions options;
  options.placement = Placement::mmap;
  pack.verify();
  const auto source = MemoryTable::open_pack(path, options);
  const uint64_t rows = source->rows();
  std::vector<uint64_t> ids;
  RowBatch batch;
  for (uint64_t first = 0; first < rows; first += kRowsAtATime) {
    ids.resize(std::min(kRowsAtATime, rows - first));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = first + i;
    source->start(ids, batch);
    source->wait(batch);
    const Tensor values =
        at::empty({static_cast<int64_t>(ids.size()), static_cast<int64_t>(config.head_dim)}, at::kFloat);
    gather_rows(config.format, batch.rows(), config.head_dim, values.data_ptr<float>());
    sink(first, values);
  }
}

}  // namespace

LoadedRows load_table(const fs::path& path) {
  const auto pack = Pack::open(path);
  const EngramTableConfig& config = pack->description().table;
  std::shared_ptr<const TokenMap> map;
  if (!config.raw_ids)
    map = std::make_shared<const TokenMap>(TokenMap::parse(pack->token_map(), path.string()));
  Tensor values =
      at::empty({static_cast<int64_t>(pack->row_count()), static_cast<int64_t>(config.head_dim)}, at::kFloat);
  for_rows(*pack, path, [&](uint64_t first, const Tensor& rows) {
    values.narrow(0, static_cast<int64_t>(first), rows.size(0)).copy_(rows);
  });
  return {config, RowTable(std::move(values)), std::move(map)};
}

void read_table(const fs::path& path, const EngramTableConfig& expected,
                const std::function<void(uint64_t first, const Tensor& rows)>& sink) {
  const auto pack = Pack::open(path);
  EngramTableConfig found = pack->description().table;
  found.file = expected.file;
  require(found == expected, ErrorCode::mismatch,
          "{} holds another table than the one that the model's config describes", path.string());
  for_rows(*pack, path, sink);
}

}  // namespace mneme::train

// Opening and writing safetensors: one file, the shards of an index, or a buffer.
#include "files/safetensors.h"

#include <algorithm>

#include "core/checked.h"
#include "core/fail.h"
#include "core/json.h"
#include "files/printable.h"
#include "files/safetensors_header.h"
#include "files/shard_index.h"
#include "files/tensor_store.h"

namespace mneme {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

class SafetensorsSource final : public TensorSource {
 public:
  explicit SafetensorsSource(TensorStore store) : store_(std::move(store)) {
    for (size_t p = 0; p < store_.parts(); ++p)
      for (auto& entry : parse_safetensors_header(store_.part(p).bytes, store_.part(p).label))
        store_.add(p, std::move(entry.info), entry.offset);
  }

  const std::vector<TensorInfo>& tensors() const override { return store_.tensors(); }
  const TensorInfo* find(std::string_view name) const override { return store_.find(name); }
  const TensorStore& store() const { return store_; }
  Bytes data(const TensorInfo& tensor) const override { return store_.data(tensor); }
  void release(const TensorInfo& tensor) const override { store_.release(tensor); }
  uint64_t file_bytes() const override { return store_.file_bytes(); }
  std::vector<fs::path> paths() const override { return store_.paths(); }

 private:
  TensorStore store_;
};

}  // namespace

std::unique_ptr<TensorSource> open_safetensors(const fs::path& file, LoadMode mode) {
  TensorStore store;
  store.add_file(file, mode);
  return std::make_unique<SafetensorsSource>(std::move(store));
}

std::unique_ptr<TensorSource> parse_safetensors(Bytes bytes) {
  TensorStore store;
  store.add_buffer(bytes, "safetensors buffer");
  return std::make_unique<SafetensorsSource>(std::move(store));
}

std::unique_ptr<TensorSource> open_safetensors_folder(const fs::path& folder, LoadMode mode) {
  if (fs::exists(folder / kSingle)) return open_safetensors(folder / kSingle, mode);
  require(fs::exists(folder / kIndex), ErrorCode::not_found, "{} holds neither {} nor {}", folder.string(),
          kSingle, kIndex);
  const ShardIndex index = read_shard_index(folder / kIndex);
  auto source = std::make_unique<SafetensorsSource>(open_shards(folder / kIndex, index, mode));
  check_shards(folder / kIndex, index, source->store());
  return source;
}

void write_safetensors(const fs::path& path, const std::vector<SafetensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<void(uint64_t done, uint64_t total)>& progress) {
  // Wide types first, so that every tensor is aligned to its own element size without gaps.
  std::vector<const SafetensorToWrite*> order;
  for (const auto& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](auto* a, auto* b) {
    return dtype_info(a->info.type).block_bytes > dtype_info(b->info.type).block_bytes;
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t total = 0;
  for (const auto* tensor : order) {
    const auto& info = tensor->info;
    require(!header.contains(info.name), ErrorCode::invalid_argument, "two tensors to write are named \"{}\"",
            printable(info.name));
    const uint64_t end = checked_add(total, info.bytes, "tensor offset");
    header[info.name] = {
        {"dtype", safetensors_dtype(info.type)}, {"shape", info.shape}, {"data_offsets", {total, end}}};
    total = end;
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  const uint64_t data_begin = file.position();
  for (const auto* tensor : order) {
    const uint64_t begin = file.position();
    tensor->write(file);
    require(file.position() - begin == tensor->info.bytes, ErrorCode::internal,
            "tensor \"{}\" wrote {} bytes instead of {}", printable(tensor->info.name),
            file.position() - begin, tensor->info.bytes);
    if (progress) progress(file.position() - data_begin, total);
  }
  file.commit();
}

}  // namespace mneme

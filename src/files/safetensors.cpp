// Opening and writing safetensors: one file, the shards of an index, or a buffer.
#include "files/safetensors.h"

#include <algorithm>

#include "core/checked.h"
#include "core/fail.h"
#include "core/json.h"
#include "files/printable.h"
#include "files/safetensors_header.h"
#include "files/store_source.h"

namespace mneme {
namespace {

void add_tensors(TensorStore& store, size_t part) {
  for (auto& entry : parse_safetensors_header(store.part(part).bytes, store.part(part).label))
    store.add(part, std::move(entry.info), entry.offset);
}

constexpr TensorFormat kFormat{"model.safetensors", "model.safetensors.index.json", "safetensors buffer",
                               add_tensors};

}  // namespace

std::unique_ptr<TensorSource> open_safetensors(const fs::path& file, LoadMode mode) {
  return open_tensor_file(kFormat, file, mode);
}

std::unique_ptr<TensorSource> parse_safetensors(Bytes bytes) {
  return parse_tensor_buffer(kFormat, bytes);
}

std::unique_ptr<TensorSource> open_safetensors_folder(const fs::path& folder, LoadMode mode) {
  return open_tensor_folder(kFormat, folder, mode);
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

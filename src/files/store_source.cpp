#include "files/store_source.h"

#include "core/fail.h"
#include "files/shard_index.h"

namespace mneme {
namespace {

TensorStore filled(TensorStore store, const TensorFormat& format) {
  for (size_t part = 0; part < store.parts(); ++part) format.add_tensors(store, part);
  return store;
}

std::unique_ptr<TensorSource> source_of(TensorStore store) {
  return std::make_unique<StoreSource<TensorSource>>(std::move(store));
}

}  // namespace

std::unique_ptr<TensorSource> open_tensor_file(const TensorFormat& format, const fs::path& file,
                                               LoadMode mode) {
  TensorStore store;
  store.add_file(file, mode);
  return source_of(filled(std::move(store), format));
}

std::unique_ptr<TensorSource> parse_tensor_buffer(const TensorFormat& format, Bytes bytes) {
  TensorStore store;
  store.add_buffer(bytes, format.buffer);
  return source_of(filled(std::move(store), format));
}

std::unique_ptr<TensorSource> open_tensor_folder(const TensorFormat& format, const fs::path& folder,
                                                 LoadMode mode) {
  if (fs::exists(folder / format.single)) return open_tensor_file(format, folder / format.single, mode);
  const fs::path list = folder / format.index;
  require(fs::exists(list), ErrorCode::not_found, "{} holds neither {} nor {}", folder.string(),
          format.single, format.index);
  const ShardIndex index = read_shard_index(list);
  TensorStore store = filled(open_shards(list, index, mode), format);
  check_shards(list, index, store);
  return source_of(std::move(store));
}

}  // namespace mneme

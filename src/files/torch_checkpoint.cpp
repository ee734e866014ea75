#include "files/torch_checkpoint.h"

#include <algorithm>

#include "core/fail.h"
#include "files/printable.h"
#include "files/shard_index.h"
#include "files/tensor_store.h"
#include "files/torch_archive.h"
#include "files/torch_pickle.h"

namespace mneme {
namespace {

constexpr const char* kSingle = "pytorch_model.bin";
constexpr const char* kIndex = "pytorch_model.bin.index.json";
constexpr std::string_view kPickle = "/data.pkl";

using Entries = std::vector<StoredEntry>;

const StoredEntry* find_entry(const Entries& entries, std::string_view name) {
  const auto at = std::lower_bound(entries.begin(), entries.end(), name,
                                   [](const StoredEntry& e, std::string_view n) { return e.name < n; });
  return at != entries.end() && at->name == name ? &*at : nullptr;
}

/// The folder inside the archive that holds everything; torch names it after the file.
std::string_view root_of(const Entries& entries, const std::string& file) {
  const StoredEntry* pickle = nullptr;
  for (const StoredEntry& entry : entries) {
    const bool top =
        entry.name.ends_with(kPickle) && entry.name.find('/') == entry.name.size() - kPickle.size();
    if (!top) continue;
    require(pickle == nullptr, ErrorCode::corrupt, "{}: both \"{}\" and \"{}\" could be its list of tensors",
            file, printable(pickle ? pickle->name : ""), printable(entry.name));
    pickle = &entry;
  }
  require(pickle != nullptr, ErrorCode::unsupported,
          "{} is a zip archive without FOLDER/data.pkl, so it is no torch checkpoint", file);
  return pickle->name.substr(0, pickle->name.size() - kPickle.size());
}

void check_byte_order(Bytes bytes, const StoredEntry* entry, const std::string& file) {
  if (entry == nullptr) return;  // files of older versions have none; they are little-endian
  const auto part = bytes.subspan(entry->offset, entry->bytes);
  const std::string_view text(reinterpret_cast<const char*>(part.data()), part.size());
  require(text == "little", ErrorCode::unsupported, "{}: its byte order is \"{}\"; only little can be read",
          file, printable(text));
}

/// Adds the tensors of one part of a store.
void add_tensors(TensorStore& store, size_t number) {
  const std::string file = store.part(number).label;
  const Bytes bytes = store.part(number).bytes;
  const Entries entries = read_stored_archive(bytes, file);
  const std::string root(root_of(entries, file));
  check_byte_order(bytes, find_entry(entries, root + "/byteorder"), file);
  const StoredEntry& list = *find_entry(entries, root + std::string(kPickle));
  const Bytes pickle = bytes.subspan(list.offset, list.bytes);
  require(crc32_of(pickle) == list.crc32, ErrorCode::corrupt,
          "{}: the checksum of its list of tensors is wrong; the file is damaged", file);
  for (PickledTensor& tensor : read_torch_pickle(pickle, file)) {
    const StoredEntry* storage = find_entry(entries, root + "/data/" + tensor.storage);
    require(storage != nullptr, ErrorCode::corrupt,
            "{}: tensor \"{}\" is in storage \"{}\", which is not there", file, printable(tensor.info.name),
            printable(tensor.storage));
    require(storage->bytes == tensor.storage_bytes, ErrorCode::corrupt,
            "{}: tensor \"{}\" expects {} bytes in storage \"{}\", which has {}", file,
            printable(tensor.info.name), tensor.storage_bytes, printable(tensor.storage), storage->bytes);
    store.add(number, std::move(tensor.info), storage->offset + tensor.offset);
  }
}

class TorchSource final : public TensorSource {
 public:
  explicit TorchSource(TensorStore store) : store_(std::move(store)) {
    for (size_t p = 0; p < store_.parts(); ++p) add_tensors(store_, p);
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

bool has_torch_checkpoint(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / kSingle, error) || fs::exists(folder / kIndex, error);
}

std::unique_ptr<TensorSource> open_torch_checkpoint(const fs::path& file, LoadMode mode) {
  TensorStore store;
  store.add_file(file, mode);
  return std::make_unique<TorchSource>(std::move(store));
}

std::unique_ptr<TensorSource> parse_torch_checkpoint(Bytes bytes) {
  TensorStore store;
  store.add_buffer(bytes, "torch buffer");
  return std::make_unique<TorchSource>(std::move(store));
}

std::unique_ptr<TensorSource> open_torch_folder(const fs::path& folder, LoadMode mode) {
  if (fs::exists(folder / kSingle)) return open_torch_checkpoint(folder / kSingle, mode);
  require(fs::exists(folder / kIndex), ErrorCode::not_found, "{} holds neither {} nor {}", folder.string(),
          kSingle, kIndex);
  const ShardIndex index = read_shard_index(folder / kIndex);
  auto source = std::make_unique<TorchSource>(open_shards(folder / kIndex, index, mode));
  check_shards(folder / kIndex, index, source->store());
  return source;
}

}  // namespace mneme

#include "files/torch_checkpoint.h"

#include <algorithm>

#include "core/fail.h"
#include "files/printable.h"
#include "files/store_source.h"
#include "files/torch_archive.h"
#include "files/torch_pickle.h"

namespace mneme {
namespace {

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
    store.add(number, std::move(tensor.info), storage->offset + tensor.offset, std::move(tensor.strides));
  }
}

constexpr TensorFormat kFormat{"pytorch_model.bin", "pytorch_model.bin.index.json", "torch buffer",
                               add_tensors};

}  // namespace

bool has_torch_checkpoint(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / kFormat.single, error) || fs::exists(folder / kFormat.index, error);
}

std::unique_ptr<TensorSource> open_torch_checkpoint(const fs::path& file, LoadMode mode) {
  return open_tensor_file(kFormat, file, mode);
}

std::unique_ptr<TensorSource> parse_torch_checkpoint(Bytes bytes) {
  return parse_tensor_buffer(kFormat, bytes);
}

std::unique_ptr<TensorSource> open_torch_folder(const fs::path& folder, LoadMode mode) {
  return open_tensor_folder(kFormat, folder, mode);
}

}  // namespace mneme

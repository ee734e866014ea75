// The container of a torch checkpoint (torch.save since 1.6): a zip archive whose entries are stored, never
// compressed, so that every storage can be used in place from a mapping.
//
//   ROOT/data.pkl       a pickle that describes the tensors (torch_pickle.h)
//   ROOT/data/KEY       the bytes of one storage, aligned to 64 by padding in the local header
//   ROOT/byteorder      "little" or "big"; absent in older files, which are little
//   ROOT/version, ...   not needed
//
// Only the central directory at the end counts; zip64 fields are read, because shards exceed 4 GiB.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace mneme {

struct StoredEntry {
  std::string_view name;  // a view into the file
  uint64_t offset = 0;    // of the first byte, from the start of the file
  uint64_t bytes = 0;
  uint32_t crc32 = 0;
};

/// The entries of an archive, sorted by name. Every one is checked to lie inside the file, apart from all
/// others and before the directory. `file` names it in messages. Throws Error: corrupt (no end record,
/// counts, sizes or offsets that contradict the file, two entries of one name, overlaps), unsupported
/// (compressed or encrypted entries, several disks).
std::vector<StoredEntry> read_stored_archive(Bytes bytes, const std::string& file);

/// CRC-32 as in zip (polynomial 0xEDB88320, reflected).
uint32_t crc32_of(Bytes bytes) noexcept;

}  // namespace mneme

// A pack (`.engram`): one table of rows beside its model, and optionally the modules that use it.
// Little-endian; docs/files.md gives every byte.
//
//   header        192 bytes: magic, version, where the sections are, shape of the rows, SHA-256
//   description   JSON: the table's config, the constants derived from it, modules, directory of their
//   tensors token map     as TokenMap serializes it; empty for a table of raw ids checksums     XXH3 of every
//   block (4 MiB) of the rows tensors       of the modules, each from a multiple of 64 rows          from a
//   multiple of 4096, see RowPart::rows_per_page
//
// The SHA-256, which is also the pack's fingerprint, covers the header, the description (and with it the
// checksums of tensors), the token map and the checksums of blocks: all that can be checked without reading
// the rows is checked at opening, and a pack whose fingerprint is known is known to the last byte.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "files/tensor_source.h"
#include "memory/store/row_map.h"
#include "mneme/engram_config.h"
#include "mneme/memory.h"

namespace mneme {

struct BlockSums;

inline constexpr uint64_t kPackBlockBytes = uint64_t{4} << 20;

struct PackDescription {
  EngramTableConfig table;
  std::vector<EngramModuleConfig>
      modules;             // in the order of their layers; none: the pack serves a config only
  std::string model_hash;  // Model::hash() of the model that the modules were made for, or empty
  std::string source;      // where the rows came from, for people
};

/// Immutable and thread-safe. Also the source of the modules' tensors. Holds a mapping of all but the rows.
class Pack final : public TensorSource {
 public:
  /// Throws Error: not_found, io, corrupt (not a pack, incomplete, damaged, sizes that contradict each
  /// other), unsupported (another version), mismatch (multipliers or prime sums that do not follow from the
  /// config).
  static std::shared_ptr<const Pack> open(const fs::path& path);
  /// A whole file in memory that the caller keeps alive (tests, fuzzing).
  static std::shared_ptr<const Pack> parse(Bytes file, const std::string& name);
  /// Whether a file begins like a pack.
  static bool is_pack(const fs::path& path);
  ~Pack() override;

  const PackDescription& description() const noexcept;
  /// The module of a layer, or nullptr.
  const EngramModuleConfig* find_module(uint32_t layer_id) const noexcept;
  const fs::path& path() const noexcept;
  /// 64 hexadecimal digits.
  const std::string& fingerprint() const noexcept;
  /// What TokenMap::parse reads; empty for a table of raw ids.
  Bytes token_map() const noexcept;
  /// Where the rows are, with the fingerprint.
  RowLayout rows() const;
  const BlockSums& block_sums() const noexcept;
  uint64_t row_count() const noexcept;
  uint32_t row_bytes() const noexcept;
  uint32_t rows_per_page() const noexcept;

  /// Reads everything and compares every checksum. Throws Error(corrupt) that names the first damaged tensor
  /// or block, with its rows. `progress` may throw to stop.
  void verify(const std::function<void(uint64_t done, uint64_t total)>& progress = {}) const;

  // TensorSource: the tensors of the modules.
  const std::vector<TensorInfo>& tensors() const override;
  const TensorInfo* find(std::string_view name) const override;
  Bytes data(const TensorInfo& tensor) const override;
  void release(const TensorInfo& tensor) const override;
  uint64_t file_bytes() const override;
  std::vector<fs::path> paths() const override;

 private:
  struct Contents;
  explicit Pack(std::unique_ptr<Contents> contents);
  std::unique_ptr<Contents> contents_;
};

/// A tensor of a module, to be written.
struct PackTensor {
  TensorInfo info;
  Bytes data;  // info.bytes of them, alive until the pack is written
};

struct PackToWrite {
  PackDescription description;
  std::vector<std::byte> token_map;  // TokenMap::serialize(), or empty with raw_ids
  std::vector<PackTensor> tensors;
  /// Writes the records of rows [first, first + count) back to back; called in order, from one thread.
  std::function<void(uint64_t first, uint64_t count, std::byte* out)> rows;
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes of the file; may throw to stop
};

/// Writes a pack so that its name holds either the old content or the whole new one. Work in progress is
/// `path`.partial, with a journal `path`.journal of finished blocks: the same call again goes on where the
/// last one was interrupted or the machine was switched off; another pack under that name starts from the
/// beginning. Returns the rows that were there already. Throws Error: invalid_argument (a description that
/// contradicts itself or the tensors), io (no space, which is checked first; cannot write), limit (another
/// process is writing it), and what `rows` throws.
uint64_t write_pack(const fs::path& path, const PackToWrite& pack);

/// Removes what an interrupted write_pack() left behind.
void discard_partial_pack(const fs::path& path);

/// Bytes of a file of that many rows without tensors and token map. Throws Error(corrupt) on overflow.
uint64_t pack_row_bytes(uint64_t rows, uint32_t row_bytes);

}  // namespace mneme

// The file that experts are read from when they do not all stay in memory (--experts mmap, direct).
//
// A model file has an expert in three places (ffn_gate_exps, ffn_up_exps, ffn_down_exps), in rows, and
// unaligned; kernels want tiles. To rearrange after every read runs at 0.7 (Q4_K) to 5 GB/s (Q8_0) a core and
// would need a second buffer, where a disk brings 1.5 GB/s and the cores have a model to compute. So the
// experts of a model are written once as the kernels read them, and from then on a read goes from the disk to
// its place with no copy between:
//
//   header   4096 bytes: "mneme experts 2\n", the identity (64 hexadecimal digits), "\n", the path of the
//            model's first file (or nothing where it is too long), "\n", zeros
//   records  one for each expert, layers in order; a record holds gate, up and down, each at a multiple of
//            64, and is padded to a multiple of 4096, as reads past the file cache want
//   sums     XXH3 of each record, then XXH3 of the header and these: 8 bytes each, little-endian
//
// Sums of records are checked when they are read (expert_store.h), that of the header when the file is
// opened.
//
// The file lies in cache_folder()/experts and may be deleted at any time. The name stands for the path of the
// model and how its weights are held, the identity also for size and time of the model's files: when these
// change, or a newer Mneme comes, the file is written anew. Whoever writes one first removes what is of no
// use: files of models that are gone, of other formats, and parts left by processes that were killed.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "files/tensor_source.h"
#include "model/model_impl.h"

namespace mneme {

inline constexpr uint64_t kExpertAlign = 4096;

struct ExpertLayout {
  struct Layer {
    uint32_t experts = 0, top_k = 0;  // 0: the layer has none
    uint32_t first = 0;               // number of its first expert among those of all layers
    std::array<uint64_t, 3> at{};     // of gate, up and down in a record
    uint64_t record_bytes = 0;
    uint64_t offset = kExpertAlign;  // of its first record in the file
  };
  std::vector<Layer> layers;  // of the model
  uint32_t experts = 0;       // of all layers
  uint64_t largest_record = 0;
  uint64_t records_end = kExpertAlign;  // in the file: where the sums begin
  uint64_t file_bytes = 0;
  std::string description;  // shapes and kinds of numbers
};

/// The layout of a model whose matrices have their shapes and types, but no data. Throws Error(corrupt) if
/// sizes overflow, Error(mismatch) if the experts of a layer have unlike shapes.
ExpertLayout expert_layout(const ModelImpl& model);

/// The name in the cache folder, and what stands in the header, for a model of these files.
struct ExpertFileName {
  fs::path path;
  std::string identity;
  fs::path model;  // the first of its files
};
ExpertFileName expert_file_name(const ExpertLayout& layout, const std::vector<fs::path>& model_files);

/// Whether the file is there, whole as far as its header tells, and that of the identity.
bool expert_file_is_current(const ExpertFileName& name, const ExpertLayout& layout);

/// The sums of the records [experts of all layers]. Throws Error: not_found, io, corrupt (a file of another
/// format or size, or header and sums are damaged).
std::vector<uint64_t> read_expert_sums(const fs::path& path, const ExpertLayout& layout);

/// Removes files in `folder` that nobody can use: see above. What cannot be read or removed stays.
void remove_useless_expert_files(const fs::path& folder);

/// Writes it, all or nothing, after remove_useless_expert_files(). `produce` fills a zeroed record. Throws
/// Error(io) where the disk is too small or cannot be written, and what `produce` throws.
void write_expert_file(
    const ExpertFileName& name, const ExpertLayout& layout,
    const std::function<void(size_t layer, uint32_t expert, std::span<std::byte> record)>& produce);

}  // namespace mneme

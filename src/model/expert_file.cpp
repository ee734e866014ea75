#include "model/expert_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>

#include "core/checked.h"
#include "core/fail.h"
#include "core/huge_buffer.h"
#include "core/paths.h"
#include "core/sha256.h"
#include "mneme/version.h"
#include "simd/stripes.h"

namespace mneme {
namespace {

constexpr std::string_view kExpertMagic = "mneme experts 1\n";
constexpr const char* kExpertSizes = "experts on disk";

std::string describe_shape(const PackedMatrix& w) {
  return fmt::format("{} [{}x{}] {}", packed_layout(w.type).name, w.rows, w.cols, w.stripe_lines);
}

ExpertLayout::Layer lay_out(size_t layer, const MoeWeights& moe, uint32_t top_k, std::string& description) {
  ExpertLayout::Layer out;
  out.experts = static_cast<uint32_t>(moe.experts.size());
  out.top_k = std::min(top_k, out.experts);
  const ExpertWeights& zero = moe.experts.front();
  size_t i = 0;
  for (const auto projection : {&ExpertWeights::gate, &ExpertWeights::up, &ExpertWeights::down}) {
    const std::string shape = describe_shape((zero.*projection).w);
    for (uint32_t e = 0; e < out.experts; ++e)
      require(describe_shape((moe.experts[e].*projection).w) == shape, ErrorCode::mismatch,
              "layer {}: expert {} is {}, but expert 0 {}; experts that stay on disk must be alike", layer, e,
              describe_shape((moe.experts[e].*projection).w), shape);
    out.at[i++] = out.record_bytes;
    out.record_bytes = checked_align(
        checked_add(out.record_bytes, matrix_bytes((zero.*projection).w), kExpertSizes), 64, kExpertSizes);
    description += shape + "\n";
  }
  out.record_bytes = checked_align(out.record_bytes, kExpertAlign, kExpertSizes);
  description += fmt::format("layer {}: {} experts\n", layer, out.experts);
  return out;
}

std::string header_text(const ExpertFileName& name) {
  return std::string(kExpertMagic) + name.identity + "\n";
}

}  // namespace

ExpertLayout expert_layout(const ModelImpl& model) {
  ExpertLayout out;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    ExpertLayout::Layer& layer = out.layers.emplace_back();
    if (!model.layers[i].moe) continue;
    layer = lay_out(i, *model.layers[i].moe, model.config.layers[i].ffn.top_k, out.description);
    layer.first = out.experts;
    layer.offset = out.file_bytes;
    out.experts += layer.experts;
    out.largest_record = std::max(out.largest_record, layer.record_bytes);
    out.file_bytes = checked_add(out.file_bytes, checked_mul(layer.experts, layer.record_bytes, kExpertSizes),
                                 kExpertSizes);
  }
  return out;
}

ExpertFileName expert_file_name(const ExpertLayout& layout, const std::vector<fs::path>& model_files) {
  std::string where, stamp;
  for (const fs::path& path : model_files) {
    struct stat info {};
    require(::stat(path.c_str(), &info) == 0, ErrorCode::io, "cannot stat {}", path.string());
    const std::string absolute = fs::absolute(path).lexically_normal().string();
    where += absolute + "\n";
    stamp += fmt::format("{} {}.{:09}\n", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
  }
  const std::string name = sha256_hex(where + layout.description).substr(0, 32);
  // Another version may pack the same weights otherwise.
  return {cache_folder() / "experts" / (name + ".experts"),
          sha256_hex(std::string(kVersion) + "\n" + where + stamp + layout.description)};
}

bool expert_file_is_current(const ExpertFileName& name, const ExpertLayout& layout) {
  std::error_code error;
  if (fs::file_size(name.path, error) != layout.file_bytes || error) return false;
  const std::string wanted = header_text(name);
  std::string found(wanted.size(), '\0');
  std::ifstream file(name.path, std::ios::binary);
  return file.read(found.data(), static_cast<std::streamsize>(found.size())) && found == wanted;
}

void write_expert_file(
    const ExpertFileName& name, const ExpertLayout& layout,
    const std::function<void(size_t layer, uint32_t expert, std::span<std::byte> record)>& produce) {
  ensure_folder(name.path.parent_path());
  std::error_code error;
  const fs::space_info space = fs::space(name.path.parent_path(), error);
  require(error || space.available >= layout.file_bytes, ErrorCode::io,
          "the experts of this model need {} bytes in {}, which has {} left; free some, let MNEME_HOME or "
          "XDG_CACHE_HOME name a folder on a larger disk, or use --experts ram",
          layout.file_bytes, name.path.parent_path().string(), space.available);
  AtomicFile file(name.path);
  file.write(header_text(name));
  file.pad_to(kExpertAlign);
  const HugeBuffer record(layout.largest_record);
  for (size_t i = 0; i < layout.layers.size(); ++i)
    for (uint32_t e = 0; e < layout.layers[i].experts; ++e) {
      const std::span<std::byte> bytes(record.data(), layout.layers[i].record_bytes);
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
      produce(i, e, bytes);
      file.write(Bytes(bytes));
    }
  file.commit();
}

}  // namespace mneme

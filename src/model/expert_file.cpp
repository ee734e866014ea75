#include "model/expert_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <system_error>

#include "core/checked.h"
#include "core/checksum.h"
#include "core/fail.h"
#include "core/huge_buffer.h"
#include "core/paths.h"
#include "core/sha256.h"
#include "memory/store/row_map.h"
#include "mneme/version.h"
#include "simd/stripes.h"

namespace mneme {
namespace {

constexpr std::string_view kExpertMagic = "mneme experts 2\n", kAnyExpertMagic = "mneme experts ";
constexpr size_t kIdentityDigits = 64;
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

/// What every file of the identity begins with.
std::string header_text(const ExpertFileName& name) {
  return std::string(kExpertMagic) + name.identity + "\n";
}

std::string whole_header(const ExpertFileName& name) {
  std::string header = header_text(name);
  const std::string& model = name.model.native();
  const bool fits = header.size() + model.size() < kExpertAlign && model.find('\n') == std::string::npos;
  header += (fits ? model : "") + "\n";
  header.resize(kExpertAlign);
  return header;
}

uint64_t sum_of_sums(std::string_view header, std::span<const uint64_t> sums) {
  return Xxh3().update(std::as_bytes(std::span(header))).update(std::as_bytes(sums)).value();
}

/// Whether no run of this version can use a file that begins like this.
bool is_useless(std::string_view header) {
  if (!header.starts_with(kAnyExpertMagic)) return false;  // not ours
  if (!header.starts_with(kExpertMagic)) return true;
  const size_t begin = kExpertMagic.size() + kIdentityDigits + 1;
  const size_t end = header.find('\n', std::min(begin, header.size()));
  if (end == std::string_view::npos || end == begin) return false;
  std::error_code error;
  return fs::status(header.substr(begin, end - begin), error).type() == fs::file_type::not_found;
}

}  // namespace

ExpertLayout expert_layout(const ModelImpl& model) {
  ExpertLayout out;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    ExpertLayout::Layer& layer = out.layers.emplace_back();
    if (!model.layers[i].moe) continue;
    layer = lay_out(i, *model.layers[i].moe, model.config.layers[i].ffn.top_k, out.description);
    layer.first = out.experts;
    layer.offset = out.records_end;
    out.experts += layer.experts;
    out.largest_record = std::max(out.largest_record, layer.record_bytes);
    out.records_end = checked_add(out.records_end,
                                  checked_mul(layer.experts, layer.record_bytes, kExpertSizes), kExpertSizes);
  }
  const uint64_t sums = checked_mul(uint64_t{out.experts} + 1, sizeof(uint64_t), kExpertSizes);
  out.file_bytes = checked_add(out.records_end, sums, kExpertSizes);
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
          sha256_hex(std::string(kVersion) + "\n" + where + stamp + layout.description),
          model_files.empty() ? fs::path() : fs::absolute(model_files.front()).lexically_normal()};
}

bool expert_file_is_current(const ExpertFileName& name, const ExpertLayout& layout) {
  const std::string wanted = header_text(name);
  std::string found(wanted.size(), '\0');
  std::ifstream file(name.path, std::ios::binary);
  if (!file.read(found.data(), static_cast<std::streamsize>(found.size())) || found != wanted) return false;
  try {
    read_expert_sums(name.path, layout);
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::vector<uint64_t> read_expert_sums(const fs::path& path, const ExpertLayout& layout) {
  const FileHandle file(path);
  const uint64_t size = file.size();
  require(size == layout.file_bytes, ErrorCode::corrupt, "{} has {} bytes instead of {}; remove it",
          path.string(), size, layout.file_bytes);
  std::string header(kExpertAlign, '\0');
  std::vector<uint64_t> sums(size_t{layout.experts} + 1);
  file.read(0, reinterpret_cast<std::byte*>(header.data()), header.size());
  file.read(layout.records_end, reinterpret_cast<std::byte*>(sums.data()), sums.size() * sizeof(uint64_t));
  require(header.starts_with(kExpertMagic), ErrorCode::corrupt, "{} is of another format; remove it",
          path.string());
  const uint64_t whole = sums.back();
  sums.pop_back();
  require(whole == sum_of_sums(header, sums), ErrorCode::corrupt,
          "{}: header and sums do not match their checksum; remove it", path.string());
  return sums;
}

void remove_useless_expert_files(const fs::path& folder) {
  remove_stale_files(folder);
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() != ".experts") continue;
    std::string header(kExpertAlign, '\0');
    std::ifstream file(at->path(), std::ios::binary);
    std::error_code ignored;
    if (file.read(header.data(), static_cast<std::streamsize>(header.size())) && is_useless(header))
      fs::remove(at->path(), ignored);
  }
}

void write_expert_file(
    const ExpertFileName& name, const ExpertLayout& layout,
    const std::function<void(size_t layer, uint32_t expert, std::span<std::byte> record)>& produce) {
  remove_useless_expert_files(ensure_folder(name.path.parent_path()));
  std::error_code error;
  const fs::space_info space = fs::space(name.path.parent_path(), error);
  require(error || space.available >= layout.file_bytes, ErrorCode::io,
          "the experts of this model need {} bytes in {}, which has {} left; free some, let MNEME_HOME or "
          "XDG_CACHE_HOME name a folder on a larger disk, or use --experts ram",
          layout.file_bytes, name.path.parent_path().string(), space.available);
  AtomicFile file(name.path);
  const std::string header = whole_header(name);
  file.write(header);
  std::vector<uint64_t> sums;
  sums.reserve(size_t{layout.experts} + 1);
  const HugeBuffer record(layout.largest_record);
  for (size_t i = 0; i < layout.layers.size(); ++i)
    for (uint32_t e = 0; e < layout.layers[i].experts; ++e) {
      const std::span<std::byte> bytes(record.data(), layout.layers[i].record_bytes);
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
      produce(i, e, bytes);
      file.write(Bytes(bytes));
      sums.push_back(xxh3(bytes));
    }
  sums.push_back(sum_of_sums(header, sums));
  file.write(std::as_bytes(std::span(sums)));
  file.commit();
}

}  // namespace mneme

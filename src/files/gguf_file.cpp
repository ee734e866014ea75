// Opening GGUF files: one file, the parts of a split, or a buffer.
#include <unordered_map>

#include "core/checked.h"
#include "core/fail.h"
#include "files/gguf_header.h"

namespace mneme {
namespace {

// A part of a split names the others: PREFIX-00002-of-00005.gguf, numbered from 1.
constexpr std::string_view kSplitEnd = "-00001-of-00001.gguf";
constexpr uint64_t kMaxParts = 65535;

struct Part {
  MappedFile file;  // empty when a buffer was parsed
  Bytes bytes;
  std::string label;
};

class GgufFileImpl final : public GgufFile {
 public:
  explicit GgufFileImpl(std::vector<Part> parts) : parts_(std::move(parts)) {
    for (size_t p = 0; p < parts_.size(); ++p) add_part(p);
  }

  const GgufMetadata& metadata() const override { return metadata_; }
  uint32_t version() const override { return version_; }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }

  const TensorInfo* find(std::string_view name) const override {
    const auto at = index_.find(std::string(name));
    return at == index_.end() ? nullptr : &tensors_[at->second];
  }

  Bytes data(const TensorInfo& tensor) const override {
    const auto& place = place_of(tensor);
    const Part& part = parts_[place.part];
    part.file.check_not_truncated();
    return part.bytes.subspan(place.offset, tensors_[place.tensor].bytes);
  }

  void release(const TensorInfo& tensor) const override {
    const auto& place = place_of(tensor);
    const Part& part = parts_[place.part];
    if (part.file.size() > 0)
      part.file.release(part.bytes.subspan(place.offset, tensors_[place.tensor].bytes));
  }

  uint64_t file_bytes() const override {
    uint64_t total = 0;
    for (const Part& part : parts_) total += part.bytes.size();
    return total;
  }

  std::vector<fs::path> paths() const override {
    std::vector<fs::path> out;
    for (const Part& part : parts_)
      if (part.file.size() > 0) out.push_back(part.file.path());
    return out;
  }

 private:
  struct Place {
    size_t part, tensor;
    uint64_t offset;
  };

  std::vector<Part> parts_;
  GgufMetadata metadata_;  // of the first part
  uint32_t version_ = 0;
  std::vector<TensorInfo> tensors_;
  std::vector<Place> places_;  // parallel to tensors_
  std::unordered_map<std::string, size_t> index_;

  const Place& place_of(const TensorInfo& tensor) const {
    const auto at = index_.find(tensor.name);
    require(at != index_.end(), ErrorCode::not_found, "{} has no tensor \"{}\"", parts_[0].label,
            tensor.name);
    return places_[at->second];
  }

  void add_part(size_t p) {
    GgufHeader header = parse_gguf_header(parts_[p].bytes, parts_[p].label);
    check_split(header.metadata, p);
    for (auto& tensor : header.tensors) {
      require(index_.emplace(tensor.info.name, tensors_.size()).second, ErrorCode::corrupt,
              "{}: tensor \"{}\" is also in an earlier part", parts_[p].label, tensor.info.name);
      places_.push_back({p, tensors_.size(), tensor.offset});
      tensors_.push_back(std::move(tensor.info));
    }
    if (p == 0) {
      metadata_ = std::move(header.metadata);
      version_ = header.version;
    }
    if (parts_.size() > 1 && p + 1 == parts_.size()) check_total();
  }

  void check_split(const GgufMetadata& metadata, size_t p) const {
    if (parts_.size() == 1) return;
    const uint64_t number = metadata.get_uint("split.no", 0), count = metadata.get_uint("split.count", 0);
    require(number == p && count == parts_.size(), ErrorCode::mismatch,
            "{} says that it is part {} of {} (split.no, split.count), but its name says part {} of {}",
            parts_[p].label, number + 1, count, p + 1, parts_.size());
  }

  void check_total() const {
    const uint64_t total = metadata_.get_uint("split.tensors.count", tensors_.size());
    require(total == tensors_.size(), ErrorCode::mismatch,
            "{}: split.tensors.count is {}, but the {} parts hold {} tensors", parts_[0].label, total,
            parts_.size(), tensors_.size());
  }
};

Part open_part(const fs::path& path, LoadMode mode) {
  Part part{MappedFile(path, mode), {}, path.string()};
  part.bytes = part.file.bytes();
  return part;
}

// The path up to the number of the part. Throws if the name does not end as that of part `number` + 1.
std::string split_prefix(const fs::path& path, uint64_t number, uint64_t count) {
  const std::string text = path.string();
  const std::string end = fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
  require(end.size() == kSplitEnd.size() && text.ends_with(end), ErrorCode::mismatch,
          "{} is part {} of {} of a split model; its name must end in \"{}\" so that the other parts can be "
          "found",
          text, number + 1, count, end);
  return text.substr(0, text.size() - end.size());
}

}  // namespace

std::unique_ptr<GgufFile> GgufFile::open(const fs::path& path, LoadMode mode) {
  std::vector<Part> parts;
  parts.push_back(open_part(path, mode));
  // A name without "-of-" cannot be a part; for the others a first look at the metadata decides.
  const std::string name = path.filename().string();
  if (name.find("-of-") == std::string::npos) {
    auto file = std::make_unique<GgufFileImpl>(std::move(parts));
    const uint64_t count = file->metadata().get_uint("split.count", 1);
    if (count > 1) split_prefix(path, file->metadata().get_uint("split.no", 0), count);
    return file;
  }
  const auto metadata = parse_gguf_header(parts[0].bytes, parts[0].label).metadata;
  const uint64_t count = metadata.get_uint("split.count", 1), number = metadata.get_uint("split.no", 0);
  if (count <= 1) return std::make_unique<GgufFileImpl>(std::move(parts));
  require(count <= kMaxParts && number < count, ErrorCode::corrupt,
          "{}: split.no is {} and split.count {}; parts are numbered from 0 and at most {}", path.string(),
          number, count, kMaxParts);
  const std::string prefix = split_prefix(path, number, count);
  parts.clear();
  for (uint64_t p = 0; p < count; ++p) {
    const fs::path part = fmt::format("{}-{:05}-of-{:05}.gguf", prefix, p + 1, count);
    require(fs::exists(part), ErrorCode::not_found, "{} is missing: part {} of the {} of this model",
            part.string(), p + 1, count);
    parts.push_back(open_part(part, mode));
  }
  return std::make_unique<GgufFileImpl>(std::move(parts));
}

std::unique_ptr<GgufFile> GgufFile::parse(Bytes bytes) {
  std::vector<Part> parts;
  parts.push_back({MappedFile(), bytes, "GGUF buffer"});
  return std::make_unique<GgufFileImpl>(std::move(parts));
}

}  // namespace mneme

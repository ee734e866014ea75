// Opening GGUF files: one file, the parts of a split, or a buffer.
#include "core/fail.h"
#include "files/gguf_header.h"
#include "files/store_source.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxParts = 65535;

class GgufFileImpl final : public StoreSource<GgufFile> {
 public:
  /// Parses every part of the store.
  explicit GgufFileImpl(TensorStore store) : StoreSource(std::move(store)) {
    for (size_t p = 0; p < store_.parts(); ++p) add_part(p);
  }

  const GgufMetadata& metadata() const override { return metadata_; }
  uint32_t version() const override { return version_; }

 private:
  GgufMetadata metadata_;  // of the first part
  uint32_t version_ = 0;

  void add_part(size_t p) {
    GgufHeader header = parse_gguf_header(store_.part(p).bytes, store_.part(p).label);
    if (store_.parts() > 1) check_split(header.metadata, p);
    for (auto& tensor : header.tensors) store_.add(p, std::move(tensor.info), tensor.offset);
    if (p == 0) {
      metadata_ = std::move(header.metadata);
      version_ = header.version;
    }
    if (store_.parts() > 1 && p + 1 == store_.parts()) check_total();
  }

  void check_split(const GgufMetadata& metadata, size_t p) const {
    const uint64_t number = metadata.get_uint("split.no", 0), count = metadata.get_uint("split.count", 0);
    require(number == p && count == store_.parts(), ErrorCode::mismatch,
            "{} says that it is part {} of {} (split.no + 1, split.count), but its name says part {} of {}",
            store_.part(p).label, number + 1, count, p + 1, store_.parts());
  }

  void check_total() const {
    const uint64_t total = metadata_.get_uint("split.tensors.count", tensors().size());
    require(total == tensors().size(), ErrorCode::mismatch,
            "{}: split.tensors.count is {}, but the {} parts hold {} tensors", store_.part(0).label, total,
            store_.parts(), tensors().size());
  }
};

// A part of a split names the others: PREFIX-00002-of-00005.gguf, numbered from 1.
std::string split_end(uint64_t number, uint64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

// The path without that end. `number` counts from 0.
std::string split_prefix(const fs::path& path, uint64_t number, uint64_t count) {
  require(count <= kMaxParts && number < count, ErrorCode::corrupt,
          "{}: split.no is {} and split.count {}; parts are numbered from 0, and there are at most {}",
          path.string(), number, count, kMaxParts);
  const std::string text = path.string(), end = split_end(number, count);
  require(text.ends_with(end), ErrorCode::mismatch,
          "{} is part {} of {} of a split model; its name must end in \"{}\" so that the other parts can be "
          "found",
          text, number + 1, count, end);
  return text.substr(0, text.size() - end.size());
}

}  // namespace

std::unique_ptr<GgufFile> GgufFile::open(const fs::path& path, LoadMode mode) {
  TensorStore store;
  store.add_file(path, mode);
  auto file = std::make_unique<GgufFileImpl>(std::move(store));
  const uint64_t count = file->metadata().get_uint("split.count", 1);
  if (count <= 1) return file;
  const std::string prefix = split_prefix(path, file->metadata().get_uint("split.no", 0), count);
  file.reset();
  TensorStore all;
  for (uint64_t p = 0; p < count; ++p) {
    const fs::path part = prefix + split_end(p, count);
    require(fs::exists(part), ErrorCode::not_found, "{} is missing: part {} of the {} of this model",
            part.string(), p + 1, count);
    all.add_file(part, mode);
  }
  return std::make_unique<GgufFileImpl>(std::move(all));
}

std::unique_ptr<GgufFile> GgufFile::parse(Bytes bytes) {
  TensorStore store;
  store.add_buffer(bytes, "GGUF buffer");
  return std::make_unique<GgufFileImpl>(std::move(store));
}

}  // namespace mneme

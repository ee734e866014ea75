#include "files/tensor_store.h"

#include "core/fail.h"
#include "files/printable.h"

namespace mneme {

size_t TensorStore::add_file(const fs::path& path, LoadMode mode) {
  Part part{MappedFile(path, mode), {}, path.string()};
  part.bytes = part.file.bytes();
  parts_.push_back(std::move(part));
  return parts_.size() - 1;
}

size_t TensorStore::add_buffer(Bytes bytes, std::string label) {
  parts_.push_back({MappedFile(), bytes, std::move(label)});
  return parts_.size() - 1;
}

void TensorStore::add(size_t part, TensorInfo info, uint64_t offset) {
  require(index_.emplace(info.name, tensors_.size()).second, ErrorCode::corrupt,
          "{}: a second tensor is named \"{}\"; names must be unique", parts_[part].label,
          printable(info.name));
  places_.push_back({part, offset, info.bytes});
  tensors_.push_back(std::move(info));
}

const TensorInfo* TensorStore::find(std::string_view name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &tensors_[at->second];
}

const TensorStore::Place& TensorStore::place_of(const TensorInfo& tensor) const {
  const auto at = index_.find(tensor.name);
  require(at != index_.end(), ErrorCode::not_found, "{} has no tensor \"{}\"", parts_.front().label,
          printable(tensor.name));
  return places_[at->second];
}

Bytes TensorStore::data(const TensorInfo& tensor) const {
  const Place& place = place_of(tensor);
  parts_[place.part].file.check_not_truncated();
  return parts_[place.part].bytes.subspan(place.offset, place.bytes);
}

void TensorStore::release(const TensorInfo& tensor) const {
  const Place& place = place_of(tensor);
  const Part& part = parts_[place.part];
  if (part.file.size() > 0) part.file.release(part.bytes.subspan(place.offset, place.bytes));
}

uint64_t TensorStore::file_bytes() const noexcept {
  uint64_t total = 0;
  for (const Part& part : parts_) total += part.bytes.size();
  return total;
}

std::vector<fs::path> TensorStore::paths() const {
  std::vector<fs::path> out;
  for (const Part& part : parts_)
    if (part.file.size() > 0) out.push_back(part.file.path());
  return out;
}

}  // namespace mneme

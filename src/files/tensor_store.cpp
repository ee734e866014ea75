#include "files/tensor_store.h"

#include <cstring>
#include <utility>

#include "core/fail.h"
#include "files/printable.h"

namespace mneme {
namespace {

// Copies a view into row-major order: of the last dimension value by value, of the others by counting.
void gather(const std::byte* from, const std::vector<uint64_t>& shape, const std::vector<uint64_t>& strides,
            uint64_t value_bytes, std::byte* to) {
  const size_t last = shape.size() - 1;
  std::vector<uint64_t> at(last, 0);
  for (;;) {
    const std::byte* row = from;
    for (size_t d = 0; d < last; ++d) row += at[d] * strides[d] * value_bytes;
    for (uint64_t i = 0; i < shape[last]; ++i, to += value_bytes)
      std::memcpy(to, row + i * strides[last] * value_bytes, value_bytes);
    size_t d = last;
    while (d > 0 && ++at[d - 1] == shape[d - 1]) at[--d] = 0;
    if (d == 0) return;
  }
}

}  // namespace

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

void TensorStore::add(size_t part, TensorInfo info, uint64_t offset, std::vector<uint64_t> strides) {
  require(index_.emplace(info.name, tensors_.size()).second, ErrorCode::corrupt,
          "{}: a second tensor is named \"{}\"; names must be unique", parts_[part].label,
          printable(info.name));
  places_.push_back({part, offset, info.bytes, std::move(strides)});
  tensors_.push_back(std::move(info));
}

const TensorInfo* TensorStore::find(std::string_view name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &tensors_[at->second];
}

size_t TensorStore::number_of(const TensorInfo& tensor) const {
  const auto at = index_.find(tensor.name);
  require(at != index_.end(), ErrorCode::not_found, "{} has no tensor \"{}\"", parts_.front().label,
          printable(tensor.name));
  return at->second;
}

Bytes TensorStore::data(const TensorInfo& tensor) const {
  const size_t number = number_of(tensor);
  const Place& place = places_[number];
  parts_[place.part].file.check_not_truncated();
  if (!place.strides.empty()) return gathered(number);
  return parts_[place.part].bytes.subspan(place.offset, place.bytes);
}

Bytes TensorStore::gathered(size_t number) const {
  const std::lock_guard lock(gathered_->mutex);
  std::vector<std::byte>& copy = gathered_->copies[number];
  if (copy.empty()) {
    const Place& place = places_[number];
    const TensorInfo& info = tensors_[number];
    copy.resize(place.bytes);
    gather(parts_[place.part].bytes.data() + place.offset, info.shape, place.strides,
           dtype_info(info.type).block_bytes, copy.data());
  }
  return copy;
}

void TensorStore::release(const TensorInfo& tensor) const {
  const size_t number = number_of(tensor);
  const Place& place = places_[number];
  if (!place.strides.empty()) {  // the pages of its storage are its neighbours' as much as its own
    const std::lock_guard lock(gathered_->mutex);
    gathered_->copies.erase(number);
    return;
  }
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

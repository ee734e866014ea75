#include "model/expert_store.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>

#include "core/checksum.h"
#include "core/fail.h"
#include "memory/store/placements.h"

namespace mneme {
namespace {

constexpr uint32_t kDepth = 128;
// Several reads for an expert, so that one alone keeps a solid-state disk busy.
constexpr uint64_t kReadBytes = uint64_t{512} << 10;
constexpr int64_t kShortFile = std::numeric_limits<int64_t>::max(), kDamaged = kShortFile - 1;

// Whole pages of the system around `part`, which lies in a mapping.
std::span<std::byte> pages_of(Bytes part) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t into = reinterpret_cast<uintptr_t>(part.data()) % page;
  return {const_cast<std::byte*>(part.data()) - into, part.size() + into};
}

// Brings the pages in. 0, or what was wrong.
int64_t populate(Bytes part) {
  const std::span<std::byte> pages = pages_of(part);
#ifdef MADV_POPULATE_READ
  while (::madvise(pages.data(), pages.size(), MADV_POPULATE_READ) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno == EFAULT) return kShortFile;  // where a plain access would be a SIGBUS
    if (errno != EINVAL) return -errno;
    break;  // before Linux 5.14
  }
#endif
  for (size_t at = 0; at < part.size(); at += kExpertAlign)
    static_cast<void>(*static_cast<const volatile std::byte*>(part.data() + at));
  return 0;
}

}  // namespace

ExpertStore::ExpertStore(ModelImpl& model, ExpertLayout layout, const fs::path& file,
                         const ExpertStoreOptions& options,
                         const std::function<ReadQueueFactory(uint32_t depth)>& queues)
    : model_(model),
      layout_(std::move(layout)),
      file_((require(options.placement == Placement::mmap || can_read_directly(file), ErrorCode::unsupported,
                     "the filesystem of {} does not grant direct reads; use --experts mmap", file.string()),
             file),
            options.placement == Placement::direct),
      mapped_(options.placement == Placement::mmap),
      read_ahead_(options.read_ahead),
      sums_(read_expert_sums(file, layout_)),
      cache_(layout_.experts, open_slots(options), options.half_life),
      slots_(std::make_unique<Slot[]>(cache_.slots())) {
  for (size_t i = 0; i < layout_.layers.size(); ++i)
    layer_of_.insert(layer_of_.end(), layout_.layers[i].experts, static_cast<uint32_t>(i));
  if (mapped_) {
    map_ = MappedFile(file, LoadMode::mmap);
    known_good_.resize(layout_.experts);
    return;
  }
  memory_ = HugeBuffer(slots() * layout_.largest_record);
  factory_ = queues(kDepth);
  queue_ = factory_.make(kDepth, {});
  requests_.resize(kDepth);
  for (uint32_t tag = kDepth; tag > 0; --tag) free_tags_.push_back(tag - 1);
}

ExpertStore::~ExpertStore() {
  waiting_.clear();
  try {
    while (in_flight() > 0) reap(in_flight());
  } catch (const std::exception&) {  // the queue is of no use any more; nothing can be waited for
  }
}

uint32_t ExpertStore::open_slots(const ExpertStoreOptions& options) const {
  const uint64_t record = layout_.largest_record;
  const uint64_t budget = options.budget_bytes > 0 ? options.budget_bytes : free_memory() / 2;
  uint64_t least = 0;
  for (const ExpertLayout::Layer& layer : layout_.layers) least = std::max<uint64_t>(least, layer.top_k);
  const uint64_t fit = std::min<uint64_t>(layout_.experts, budget / record);
  require(fit >= least, ErrorCode::limit,
          "a budget of {} bytes for experts holds {} of {} bytes, but a token chooses {} in a layer; give at "
          "least {} ({})",
          budget, fit, record, least, least * record, bytes_text(least * record));
  return static_cast<uint32_t>(fit);
}

uint64_t ExpertStore::resident_bytes() const noexcept {
  return slots() * layout_.largest_record;
}

Bytes ExpertStore::record(uint32_t number, uint32_t slot) const {
  const ExpertLayout::Layer& layer = layout_.layers[layer_of_[number]];
  if (mapped_)
    return map_.bytes().subspan(layer.offset + (number - layer.first) * layer.record_bytes,
                                layer.record_bytes);
  return {memory_.data() + slot * layout_.largest_record, layer.record_bytes};
}

void ExpertStore::point_at(uint32_t number, const std::byte* data) {
  const size_t layer = layer_of_[number];
  const ExpertLayout::Layer& where = layout_.layers[layer];
  auto& moe = model_.layers[layer].moe;
  if (!moe) return;
  ExpertWeights& weights = moe->experts[number - where.first];
  size_t i = 0;
  for (Linear* linear : {&weights.gate, &weights.up, &weights.down}) {
    linear->w.data = data == nullptr ? nullptr : data + where.at[i];
    ++i;
  }
}

void ExpertStore::leave(uint32_t number, uint32_t slot) {
  point_at(number, nullptr);
  if (!mapped_) return;
  const std::span<std::byte> pages = pages_of(record(number, slot));
  ::madvise(pages.data(), pages.size(), MADV_DONTNEED);
}

// A slot for an expert that is not here; -1 if all are taken by experts that are wanted or on their way.
int32_t ExpertStore::place(uint32_t number) {
  int32_t left = -1;
  const int32_t slot = cache_.insert(
      number,
      [this](uint32_t s) {
        const bool still = mapped_ || slots_[s].missing.load(std::memory_order_acquire) == 0;
        return still && slots_[s].epoch != epoch_;  // no read writes to it any more
      },
      left);
  if (slot < 0) return -1;
  const auto at = static_cast<uint32_t>(slot);
  if (left >= 0) leave(static_cast<uint32_t>(left), at);
  slots_[at].epoch = epoch_;
  slots_[at].ahead = false;
  slots_[at].failed = 0;
  slots_[at].sum.store(mapped_ && known_good_[number] ? checked : unchecked, std::memory_order_release);
  const Bytes bytes = record(number, at);
  point_at(number, bytes.data());
  begin_read(number, at, bytes);
  return slot;
}

void ExpertStore::begin_read(uint32_t number, uint32_t slot, Bytes into) {
  bytes_read_ += into.size();
  if (mapped_) {
    slots_[slot].missing.store(1, std::memory_order_release);
    map_.will_need(into);
    return;
  }
  const ExpertLayout::Layer& layer = layout_.layers[layer_of_[number]];
  const uint64_t offset = layer.offset + (number - layer.first) * layer.record_bytes;
  uint32_t reads = 0;
  for (uint64_t at = 0; at < into.size(); at += kReadBytes, ++reads)
    waiting_.push_back({file_.fd(), offset + at,
                        static_cast<uint32_t>(std::min(kReadBytes, into.size() - at)),
                        memory_.data() + slot * layout_.largest_record + at, slot});
  slots_[slot].missing.store(reads, std::memory_order_release);
}

void ExpertStore::want(size_t layer, std::span<const int32_t> experts, bool new_layer) {
  const std::lock_guard lock(mutex_);
  drop_failed();
  ++epoch_;
  if (new_layer && layer <= last_layer_) cache_.tick();
  last_layer_ = layer;
  order_.clear();
  late_.clear();
  for (const int32_t expert : experts) {
    const uint32_t n = number(layer, expert);
    cache_.use(n);
    const int32_t at = cache_.slot_of(n);
    if (at < 0) continue;
    Slot& slot = slots_[static_cast<size_t>(at)];
    slot.epoch = epoch_;
    (slot.missing.load(std::memory_order_acquire) == 0 ? order_ : late_).push_back(expert);
    slot.ahead ? ++misses_ : ++hits_;
    if (slot.ahead) ++ahead_used_;
    slot.ahead = false;
  }
  for (const int32_t expert : experts) {
    const uint32_t n = number(layer, expert);
    if (cache_.slot_of(n) >= 0) continue;
    while (place(n) < 0) reap(1);  // of experts that were read ahead in vain
    ++misses_;
    late_.push_back(expert);
  }
  order_.insert(order_.end(), late_.begin(), late_.end());
  submit();
}

void ExpertStore::ahead(size_t layer, std::span<const int32_t> experts) {
  if (!read_ahead_) return;
  const std::lock_guard lock(mutex_);
  for (const int32_t expert : experts) {
    const uint32_t n = number(layer, expert);
    const int32_t at = cache_.slot_of(n);
    if (at >= 0) {
      slots_[static_cast<size_t>(at)].epoch = epoch_;  // keeps its place
      continue;
    }
    const int32_t slot = place(n);
    if (slot < 0) break;
    slots_[static_cast<size_t>(slot)].ahead = true;
    ++ahead_;
  }
  submit();
}

void ExpertStore::wait(size_t layer, int32_t expert) {
  const uint32_t n = number(layer, expert);
  require(cache_.slot_of(n) >= 0, ErrorCode::internal, "expert {} of layer {} was not asked for", expert,
          layer);
  const auto at = static_cast<uint32_t>(cache_.slot_of(n));
  Slot& slot = slots_[at];
  if (slot.missing.load(std::memory_order_acquire) > 0) {
    const std::lock_guard lock(mutex_);
    while (slot.missing.load(std::memory_order_acquire) > 0) mapped_ ? touch(n, at) : reap(1);
  }
  check_sum(n, at);
  const int64_t failed = slot.failed;
  if (failed == 0) return;
  require(failed != kDamaged, ErrorCode::corrupt,
          "expert {} of layer {} in {} does not match its checksum; remove the file, and it is made anew",
          expert, layer, file_.path().string());
  fail(ErrorCode::io, "cannot read expert {} of layer {} from {}: {}", expert, layer, file_.path().string(),
       failed == kShortFile ? "the file became shorter while it was in use; load the model again"
                            : std::strerror(static_cast<int>(-failed)));
}

void ExpertStore::touch(uint32_t number, uint32_t slot) {
  const Bytes bytes = record(number, slot);
  const auto end = static_cast<uint64_t>(bytes.data() - map_.bytes().data()) + bytes.size();
  slots_[slot].failed = file_.size() < end ? kShortFile : populate(bytes);
  if (slots_[slot].failed != 0) broken_.push_back(slot);
  slots_[slot].missing.store(0, std::memory_order_release);
}

// One of those that wait for an expert compares, the others wait for it. Not under the lock, so that other
// experts are checked and waited for at the same time.
void ExpertStore::check_sum(uint32_t number, uint32_t at) {
  Slot& slot = slots_[at];
  uint32_t state = unchecked;
  if (!slot.sum.compare_exchange_strong(state, being_checked, std::memory_order_acq_rel)) {
    for (; state == being_checked; state = slot.sum.load(std::memory_order_acquire))
      slot.sum.wait(being_checked, std::memory_order_acquire);
    return;
  }
  const bool read = slot.failed == 0, damaged = read && xxh3(record(number, at)) != sums_[number];
  if (damaged) slot.failed = kDamaged;
  slot.sum.store(checked, std::memory_order_release);
  slot.sum.notify_all();
  const std::lock_guard lock(mutex_);
  if (damaged) broken_.push_back(at);
  if (mapped_ && read && !damaged) known_good_[number] = true;
}

// Begins as many reads as the queue may hold.
void ExpertStore::submit() {
  if (mapped_) return;
  while (!waiting_.empty() && !free_tags_.empty()) {
    const uint32_t tag = free_tags_.back();
    free_tags_.pop_back();
    ReadRequest& request = requests_[tag] = waiting_.front();
    waiting_.pop_front();
    ReadRequest tagged = request;
    tagged.slot = tag;
    queue_->push(tagged);
  }
  queue_->submit();
}

void ExpertStore::reap(size_t at_least) {
  std::array<ReadDone, 32> done;
  queue_->poll(std::min(at_least, done.size()));
  const size_t count = queue_->reap(done, std::min(at_least, done.size()));
  for (size_t i = 0; i < count; ++i) finish(done[i]);
  submit();
}

void ExpertStore::finish(const ReadDone& done) {
  ReadRequest request = requests_[done.slot];
  free_tags_.push_back(done.slot);
  if (done.result > 0 && static_cast<uint32_t>(done.result) < request.bytes &&
      static_cast<uint64_t>(done.result) % kExpertAlign == 0) {  // interrupted: the rest again
    const auto got = static_cast<uint32_t>(done.result);
    waiting_.push_front(
        {request.fd, request.offset + got, request.bytes - got, request.into + got, request.slot});
    return;
  }
  Slot& slot = slots_[request.slot];
  if (done.result < 0 || static_cast<uint32_t>(done.result) != request.bytes) {
    slot.failed = done.result < 0 ? done.result : kShortFile;
    broken_.push_back(request.slot);
  }
  slot.missing.fetch_sub(1, std::memory_order_release);
}

// Experts that could not be read are not here: the next pass that wants them tries again.
void ExpertStore::drop_failed() {
  for (const uint32_t slot : std::exchange(broken_, {})) {
    while (!mapped_ && slots_[slot].missing.load(std::memory_order_acquire) > 0) reap(1);
    const int32_t number = cache_.expert_in(slot);
    if (slots_[slot].failed == 0 || number < 0) continue;  // dropped already: several of its reads failed
    slots_[slot].failed = 0;
    leave(static_cast<uint32_t>(number), slot);
    cache_.erase(static_cast<uint32_t>(number));
  }
}

ExpertStatistics ExpertStore::statistics() const {
  ExpertStatistics out;
  out.placement = to_string(mapped_ ? Placement::mmap : Placement::direct);
  out.path = file_.path().string();
  out.experts = layout_.experts;
  out.slots = slots();
  out.expert_bytes = layout_.largest_record;
  out.resident = resident_bytes();
  out.hits = hits_;
  out.misses = misses_;
  out.bytes_read = bytes_read_;
  out.ahead = ahead_;
  out.ahead_used = ahead_used_;
  return out;
}

}  // namespace mneme

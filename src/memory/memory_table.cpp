// What all placements share: checks, statistics, and the choice among them.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <tuple>

#include "core/checked.h"
#include "memory/store/placements.h"
#include "mneme/memory.h"

namespace mneme {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t nanoseconds_since(Clock::time_point start) {
  return static_cast<uint64_t>(std::chrono::nanoseconds(Clock::now() - start).count());
}

// A number alone in a file, as control groups write them; 0 if there is none ("max").
uint64_t number_in(const std::filesystem::path& path) {
  uint64_t number = 0;
  std::ifstream file(path);
  return file >> number ? number : 0;
}

}  // namespace

uint64_t free_memory() {
  uint64_t available = 0;
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("MemAvailable:")) available = std::strtoull(line.c_str() + 13, nullptr, 10) * 1024;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::/")) continue;
    for (std::filesystem::path folder = line.substr(4);; folder = folder.parent_path()) {
      const std::filesystem::path at = std::filesystem::path("/sys/fs/cgroup") / folder;
      if (const uint64_t most = number_in(at / "memory.max"); most > 0)
        available = std::min(available, most - std::min(most, number_in(at / "memory.current")));
      if (folder.empty()) break;
    }
  }
  return available;
}

std::string bytes_text(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KB", "MB", "GB", "TB"};
  auto amount = static_cast<double>(bytes);
  size_t unit = 0;
  while (amount >= 999.5 && unit + 1 < std::size(kUnits)) {
    amount /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes)
                   : fmt::format("{:.{}f} {}", amount, amount < 10 ? 1 : 0, kUnits[unit]);
}

std::string_view to_string(Placement placement) noexcept {
  switch (placement) {
    case Placement::automatic:
      return "auto";
    case Placement::ram:
      return "ram";
    case Placement::mmap:
      return "mmap";
    case Placement::direct:
      return "direct";
    case Placement::cache:
      return "cache";
  }
  return "unknown";
}

Placement placement_from(std::string_view word) {
  for (const auto placement :
       {Placement::automatic, Placement::ram, Placement::mmap, Placement::direct, Placement::cache})
    if (word == to_string(placement)) return placement;
  fail(ErrorCode::invalid_argument,
       "\"{}\" is no placement of a memory table; there are auto, ram, mmap, direct and cache", word);
}

RowLayout::RowLayout(const RowRegion& region)
    : path(region.path),
      segments{{region.rows, {{region.path, region.offset, region.row_bytes, region.rows_per_page}}}} {}

RowBatch::RowBatch() = default;
RowBatch::~RowBatch() {
  finish();
}
RowBatch::RowBatch(RowBatch&& other) noexcept {
  *this = std::move(other);
}
RowBatch& RowBatch::operator=(RowBatch&& other) noexcept {
  if (this == &other) return *this;
  finish();
  addresses_ = std::move(other.addresses_);
  other.addresses_.clear();
  pending_ = std::exchange(other.pending_, nullptr);
  owner_ = std::exchange(other.owner_, nullptr);
  state_ = std::move(other.state_);
  spent_ = other.spent_;
  return *this;
}

uint64_t RowBatch::buffer_bytes() const noexcept {
  return addresses_.capacity() * sizeof(addresses_[0]) + (state_ ? state_->bytes() : 0);
}

// A batch that nobody waits for any more: its reads must end before their buffers go.
void RowBatch::finish() noexcept {
  if (pending_ == nullptr) return;
  try {
    pending_->end(state_);
  } catch (const std::exception&) {  // nobody is there to hear of it
  }
  pending_ = nullptr;
}

MemoryTable::MemoryTable(const RowLayout& layout, Placement placement)
    : layout_(layout), path_(layout.path), placement_(placement), counters_(std::make_shared<Counters>()) {
  const RowMap map(layout);
  rows_ = map.rows();
  row_bytes_ = map.row_bytes();
}

void MemoryTable::start(std::span<const uint64_t> ids, RowBatch& batch) const {
  for (const uint64_t id : ids)  // no require(): it would make a string of the path each time
    if (id >= rows_)
      fail(ErrorCode::invalid_argument, "row {} is outside {}, which has {} rows", id, path_.string(), rows_);
  batch.finish();
  if (batch.owner_ != this) batch.state_.reset();
  batch.owner_ = this;
  const auto start = Clock::now();
  batch.addresses_.assign(ids.size(), nullptr);
  try {
    if (!ids.empty()) begin(ids, batch.addresses_, batch.state_);
  } catch (...) {
    batch.addresses_.clear();
    throw;
  }
  batch.pending_ = this;
  batch.spent_ = nanoseconds_since(start);
}

void MemoryTable::wait(RowBatch& batch) const {
  if (batch.pending_ == nullptr) return;
  if (batch.pending_ != this)
    fail(ErrorCode::invalid_argument, "the batch was started on {}, not on {}",
         batch.pending_->path().string(), path_.string());
  const auto start = Clock::now();
  batch.pending_ = nullptr;
  try {
    if (!batch.addresses_.empty()) end(batch.state_);
  } catch (...) {
    batch.addresses_.clear();
    throw;
  }
  counters().batch.add(batch.spent_ + nanoseconds_since(start));
  count(counters().reads, 1);
  count(counters().rows, batch.addresses_.size());
}

void MemoryTable::read(std::span<const uint64_t> ids, std::span<std::byte> out) const {
  require(ids.size() <= out.size() / row_bytes_ && ids.size() * row_bytes_ == out.size(),
          ErrorCode::invalid_argument, "{} rows of {} bytes do not fill a buffer of {} bytes", ids.size(),
          row_bytes_, out.size());
  RowBatch batch;
  start(ids, batch);
  wait(batch);
  std::byte* to = out.data();
  for (const std::byte* const row : batch.rows()) {
    std::memcpy(to, row, row_bytes_);
    to += row_bytes_;
  }
}

MemoryStatistics MemoryTable::statistics() const {
  const auto load = [](const std::atomic<uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  const Counters& c = *counters_;
  MemoryStatistics out;
  out.reads = load(c.reads);
  out.rows = load(c.rows);
  out.bytes = out.rows * row_bytes_;
  out.distinct = load(c.distinct);
  out.hits = load(c.hits);
  out.misses = load(c.misses);
  out.overlaid = load(c.overlaid);
  out.disk_reads = load(c.disk_reads);
  out.disk_bytes = load(c.disk_bytes);
  out.batch = c.batch.read();
  out.disk = c.disk.read();
  return out;
}

void MemoryTable::reset_statistics() const noexcept {
  Counters& c = *counters_;
  for (auto* counter :
       {&c.reads, &c.rows, &c.distinct, &c.hits, &c.misses, &c.overlaid, &c.disk_reads, &c.disk_bytes})
    counter->store(0, std::memory_order_relaxed);
  c.batch.reset();
  c.disk.reset();
}

std::string MemoryTable::describe() const {
  std::string out = fmt::format("{}: {}, {} rows of {} bytes, {} on disk, {} in memory; {}", path_.string(),
                                to_string(placement_), rows_, row_bytes_, bytes_text(bytes()),
                                bytes_text(resident_bytes()), details());
  if (!reason_.empty()) out += "; " + reason_;
  return out;
}

namespace {

// What automatic becomes, and why.
std::pair<Placement, std::string> choose(const RowLayout& layout, uint64_t budget, bool given) {
  const RowMap map(layout);
  const uint64_t bytes = map.rows() * map.row_bytes();
  const std::string room =
      fmt::format("{} {}", given ? "the budget of" : "half of free memory,", bytes_text(budget));
  if (bytes <= budget) return {Placement::ram, "auto: it fits into " + room};
  for (const RowMap::File& file : map.files())
    if (!given && !can_read_directly(file.path))
      return {Placement::mmap,
              fmt::format("auto: larger than {}, and its filesystem refuses O_DIRECT", room)};
  return {Placement::cache, "auto: larger than " + room};
}

}  // namespace

std::unique_ptr<MemoryTable> open_table(const RowLayout& layout, const MemoryOptions& given,
                                        const BlockSums* sums) {
  MemoryOptions options = given;
  if (!options.overlays.empty() && options.budget_bytes > 0) {
    const uint64_t overlays = overlay_bytes(options.overlays);
    require(overlays < options.budget_bytes, ErrorCode::limit,
            "{}: its overlays need {} bytes, and the memory budget is {}; give more, or fewer overlays",
            layout.path.string(), overlays, options.budget_bytes);
    options.budget_bytes -= overlays;
  }
  std::string reason;
  if (options.placement == Placement::automatic) {
    RowMap(layout).open_files();  // a missing or short file is told as such
    const uint64_t budget = options.budget_bytes > 0 ? options.budget_bytes : free_memory() / 2;
    std::tie(options.placement, reason) = choose(layout, budget, options.budget_bytes > 0);
    options.budget_bytes = budget;
  }
  std::unique_ptr<MemoryTable> table;
  switch (options.placement) {
    case Placement::ram:
      table = open_ram(layout, options, sums);
      break;
    case Placement::mmap:
      table = open_mapped(layout, options);
      break;
    default:
      table = open_reading(layout, options, system_read_queue);
      break;
  }
  table->reason_ = std::move(reason);
  return open_overlays(std::move(table), layout, options.overlays);
}

std::unique_ptr<MemoryTable> MemoryTable::open(const RowLayout& layout, const MemoryOptions& options) {
  return open_table(layout, options, nullptr);
}

std::unique_ptr<MemoryTable> MemoryTable::open(const RowLayout& layout, Placement placement) {
  MemoryOptions options;
  options.placement = placement;
  return open(layout, options);
}

}  // namespace mneme

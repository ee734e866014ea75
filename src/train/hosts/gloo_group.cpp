#include "train/hosts/gloo_group.h"

#include "core/fail.h"

#ifdef USE_C10D_GLOO
#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace mneme::train {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kNews{3'000};  // a broken connection is explained by the roster within this

/// What Gloo stores while it connects (each process's addresses), kept by the roster.
class RosterStore : public c10d::Store {
 public:
  RosterStore(Roster& roster, milliseconds timeout) : Store(timeout), roster_(&roster) {}

  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    roster_->set(key, std::string(value.begin(), value.end()));
  }
  std::vector<uint8_t> get(const std::string& key) override {
    const std::optional<std::string> value = roster_->wait(key, timeout_);
    require(value.has_value(), ErrorCode::network, "the address of another process did not come");
    return {value->begin(), value->end()};
  }
  bool check(const std::vector<std::string>& keys) override {
    return std::all_of(keys.begin(), keys.end(), [&](const std::string& key) { return roster_->has(key); });
  }
  void wait(const std::vector<std::string>& keys) override { wait(keys, timeout_); }
  void wait(const std::vector<std::string>& keys, const milliseconds& timeout) override {
    for (const std::string& key : keys)
      require(roster_->wait(key, timeout).has_value(), ErrorCode::network,
              "the address of another process did not come");
  }
  // Gloo counts and deletes nothing.
  int64_t add(const std::string&, int64_t) override { return no("add"); }
  bool deleteKey(const std::string&) override { return no("deleteKey"); }
  int64_t getNumKeys() override { return no("getNumKeys"); }

 private:
  [[noreturn]] static int64_t no(const char* what) {
    fail(ErrorCode::internal, "Gloo asked the roster for {}", what);
  }
  Roster* roster_;
};

/// What a waiting operation is woken by; outlives the group where Gloo's thread still has one in hand.
struct News {
  std::mutex mutex;
  std::condition_variable changed;
  bool lost = false;
};

class GlooGroup final : public ProcessGroup {
 public:
  GlooGroup(std::unique_ptr<Roster> roster, uint32_t rank, uint32_t size, milliseconds join_timeout,
            milliseconds operation_timeout)
      : ProcessGroup(rank, size), roster_(std::move(roster)) {
    roster_->on_loss([news = news_] {
      const std::lock_guard lock(news->mutex);
      news->lost = true;
      news->changed.notify_all();
    });
    guarded("connecting", [&] {
      const auto options = c10d::ProcessGroupGloo::Options::create(operation_timeout);
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(roster_->address()));
      options->threads = 1;  // operations come one after another
      const auto store = c10::make_intrusive<RosterStore>(*roster_, join_timeout);
      gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store, static_cast<int>(rank),
                                                          static_cast<int>(size), options);
    });
  }

  ~GlooGroup() override {
    if (broken_)  // an operation may wait in its thread for long; the process ends anyway
      static_cast<void>(gloo_.release());
  }

  void set_step(uint64_t step) override { step_ = step; }
  void give_up(std::string_view reason) noexcept override {
    broken_ = true;
    try {
      roster_->give_up(std::string(reason));
    } catch (const std::exception&) {  // the others will see the connection close
    }
  }

 private:
  using Work = c10::intrusive_ptr<c10d::Work>;

  void sum(Tensor& values) override {
    run("adding up", [&] {
      std::vector<Tensor> one{values};
      return gloo_->allreduce(one);
    });
  }
  void copy_from(Tensor& values, uint32_t root) override {
    run("copying", [&] {
      std::vector<Tensor> one{values};
      c10d::BroadcastOptions options;
      options.rootRank = static_cast<int64_t>(root);
      return gloo_->broadcast(one, options);
    });
  }
  Tensor exchange(const Tensor& values, const std::vector<int64_t>& sent,
                  const std::vector<int64_t>& got) override {
    std::vector<int64_t> shape = values.sizes().vec(), counts_out = sent, counts_in = got;
    shape[0] = 0;
    for (const int64_t count : got) shape[0] += count;
    Tensor result = at::empty(shape, values.options()), source = values;
    run("exchanging rows", [&] { return gloo_->alltoall_base(result, source, counts_in, counts_out); });
    return result;
  }
  void wait_for_all() override {
    run("waiting for each other", [&] { return gloo_->barrier(); });
  }

  /// Starts an operation and waits until it is done or a process is lost, whichever is first.
  template <class Start>
  void run(const char* doing, const Start& start) {
    guarded(doing, [&] {
      const Work work = start();
      const auto future = work->getFuture();
      future->addCallback([news = news_](c10::ivalue::Future&) {
        const std::lock_guard lock(news->mutex);
        news->changed.notify_all();
      });
      std::unique_lock lock(news_->mutex);
      news_->changed.wait(lock, [&] { return future->completed() || news_->lost; });
      lock.unlock();
      require(future->completed(), ErrorCode::network, "a process was lost");
      if (future->hasError()) std::rethrow_exception(future->exception_ptr());
    });
  }

  /// Turns what Gloo throws into one line that names the process that was lost.
  template <class Operation>
  void guarded(const char* doing, const Operation& operation) {
    require(!broken_, ErrorCode::network, "the processes of this run are no longer together");
    std::string what;
    try {
      operation();
      return;
    } catch (const std::exception& error) {
      what = error.what();
    }
    broken_ = true;
    const std::optional<Loss> loss = roster_->wait_for_loss(kNews);
    const std::string where = step_ ? fmt::format(" at step {}", *step_) : std::string();
    constexpr const char* next = "start all processes again, with --resume to go on from the last checkpoint";
    if (loss)
      fail(ErrorCode::network, "process {} of {} was lost{}: {}; {}", loss->rank, size(), where, loss->reason,
           next);
    fail(ErrorCode::network, "process {} of {} failed{} while {}: {}; {}", rank(), size(), where, doing,
         what.substr(0, what.find('\n')), next);
  }

  std::shared_ptr<News> news_ = std::make_shared<News>();
  bool broken_ = false;
  std::optional<uint64_t> step_;
  std::unique_ptr<Roster> roster_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
};

}  // namespace

bool has_gloo() noexcept {
  return true;
}

std::unique_ptr<ProcessGroup> join_gloo(RosterOptions options, milliseconds operation_timeout) {
  const uint32_t rank = options.rank, size = options.size;
  const milliseconds join_timeout = options.join_timeout;
  return std::make_unique<GlooGroup>(Roster::join(std::move(options)), rank, size, join_timeout,
                                     operation_timeout);
}

}  // namespace mneme::train

#else

namespace mneme::train {

bool has_gloo() noexcept {
  return false;
}

std::unique_ptr<ProcessGroup> join_gloo(RosterOptions, std::chrono::milliseconds) {
  fail(ErrorCode::unsupported,
       "this mneme-train was built without Gloo, so it trains in one process; install Gloo's headers "
       "(Debian: libgloo-dev) and build again");
}

}  // namespace mneme::train

#endif

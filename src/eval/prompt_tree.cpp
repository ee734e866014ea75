#include "eval/prompt_tree.h"

#include <algorithm>
#include <numeric>

#include "core/fail.h"

namespace mneme {
namespace {

// Where two prompts differ first, and whether `a` comes before `b` there.
struct Comparison {
  uint64_t common = 0;
  bool less = false;
};

Comparison compare(const Prompt& a, const Prompt& b) {
  size_t part_a = 0, part_b = 0, at_a = 0, at_b = 0;
  Comparison result;
  for (;;) {
    while (part_a < a.parts.size() && at_a == a.parts[part_a].size()) ++part_a, at_a = 0;
    while (part_b < b.parts.size() && at_b == b.parts[part_b].size()) ++part_b, at_b = 0;
    if (part_a == a.parts.size() || part_b == b.parts.size()) {
      result.less = part_b != b.parts.size();
      return result;
    }
    const auto x = a.parts[part_a].subspan(at_a), y = b.parts[part_b].subspan(at_b);
    const size_t n = std::min(x.size(), y.size());
    const auto same =
        x.data() == y.data()  // the same memory needs no look
            ? n
            : static_cast<size_t>(
                  std::mismatch(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(n), y.begin()).first -
                  x.begin());
    result.common += same;
    if (same < n) {
      result.less = x[same] < y[same];
      return result;
    }
    at_a += n;
    at_b += n;
  }
}

}  // namespace

uint64_t Prompt::size() const noexcept {
  uint64_t sum = 0;
  for (const auto& part : parts) sum += part.size();
  return sum;
}

std::vector<TokenId> Prompt::ids(uint64_t first, uint64_t last) const {
  std::vector<TokenId> out;
  out.reserve(last - first);
  uint64_t begin = 0;  // of the part
  for (const auto& part : parts) {
    const uint64_t from = std::max(first, begin), to = std::min(last, begin + part.size());
    if (from < to) {
      const auto piece = part.subspan(from - begin, to - from);
      out.insert(out.end(), piece.begin(), piece.end());
    }
    begin += part.size();
  }
  return out;
}

uint64_t common_prefix(const Prompt& a, const Prompt& b) {
  return compare(a, b).common;
}

PromptTree plan_prompts(std::span<const Prompt> prompts) {
  std::vector<size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return compare(prompts[a], prompts[b]).less; });
  // shared[i]: tokens that visit i has in common with the one before it, its own last token aside.
  std::vector<uint64_t> shared(order.size() + 1, 0);
  PromptTree tree;
  for (size_t i = 0; i < order.size(); ++i) {
    const uint64_t size = prompts[order[i]].size();
    require(size > 0, ErrorCode::invalid_argument, "prompt {} is empty", order[i]);
    if (i > 0)
      shared[i] = std::min({common_prefix(prompts[order[i - 1]], prompts[order[i]]), size - 1,
                            prompts[order[i - 1]].size() - 1});
    tree.total += size;
    tree.unique += size - shared[i];
    tree.visits.push_back({order[i], shared[i], {}});
  }
  // Later visits branch off where the running minimum of what they share with their neighbours falls.
  for (size_t i = 0; i < order.size(); ++i) {
    uint64_t reach = ~uint64_t{0};
    for (size_t j = i + 1; j < order.size() && shared[j] > tree.visits[i].start; ++j) {
      if (shared[j] >= reach) continue;
      reach = shared[j];
      tree.visits[i].forks.push_back(reach);
    }
    std::reverse(tree.visits[i].forks.begin(), tree.visits[i].forks.end());
  }
  return tree;
}

void read_prompts(SequenceRunner& runner, std::span<const Prompt> prompts, const PromptTree& tree,
                  const PromptVisitor& visitor) {
  struct Branch {
    uint64_t position;
    std::unique_ptr<Sequence> sequence;
  };
  std::vector<Branch> branches;  // of the path to the prompt at hand, outermost first
  for (const PromptTree::Visit& visit : tree.visits) {
    const Prompt& prompt = prompts[visit.prompt];
    while (!branches.empty() && branches.back().position > visit.start) branches.pop_back();
    const bool forked = !branches.empty() && branches.back().position == visit.start && visit.start > 0;
    require(forked || visit.start == 0, ErrorCode::internal, "no branch at token {}", visit.start);
    std::unique_ptr<Sequence> sequence = forked ? branches.back().sequence->fork() : runner.start();
    uint64_t at = visit.start;
    const auto read_to = [&](uint64_t end) {
      if (end == at) return;
      uint64_t told = 0;
      AppendOptions options;
      options.cancel = visitor.cancel;
      options.progress = [&](uint64_t done, uint64_t) {
        if (visitor.progress) visitor.progress(done - told);
        told = done;
      };
      sequence->append(prompt.ids(at, end), options);
      at = end;
    };
    for (const uint64_t fork : visit.forks) {
      read_to(fork);
      branches.push_back({fork, sequence->fork()});
    }
    read_to(prompt.size() - 1);
    visitor.answer(visit.prompt, *sequence, prompt.ids(at, at + 1)[0]);
    if (visitor.progress) visitor.progress(1);
  }
}

}  // namespace mneme

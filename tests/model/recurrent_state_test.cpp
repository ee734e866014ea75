// States of recurrences: however passes are cut, cancelled, undone, copied and restored, the state at a
// position has the bits of the straight run.
#include "model/recurrent_state.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "mneme/error.h"
#include "simd/recurrence_inputs.h"
#include "stride.h"

namespace mneme::recurrent_state_test {
namespace {

using Rule = RecurrenceShape::Rule;

std::shared_ptr<const RecurrentLayout> make_layout(int64_t reach) {
  auto layout = std::make_shared<RecurrentLayout>(reach);
  layout->add({Rule::gla, 2, 3, 5});
  layout->add({Rule::delta, 1, 1, 18});
  return layout;
}

// What the token with an id at any place writes.
std::vector<float> row_of(const RecurrentLayout& layout, uint32_t id) {
  std::vector<float> row(static_cast<size_t>(layout.log_values));
  std::mt19937 rng(id);
  std::normal_distribution<float> normal;
  for (auto& x : row) x = normal(rng);
  for (const auto& mixer : layout.mixers)
    for (int64_t h = 0; h < mixer.shape.kv_heads; ++h) {
      float* update = row.data() + mixer.log + h * mixer.shape.update_values();
      std::fill(update + mixer.shape.dim, update + mixer.shape.columns(), 0.0f);
      l2_normalise(1e-6f, 1, mixer.shape.dim, update + mixer.shape.k_offset());
      gla_decays(update + mixer.shape.decay_offset(), 1, mixer.shape.decays(),
                 update + mixer.shape.decay_offset());
    }
  return row;
}

// What the stages do: rows go to the log, tokens through the segments.
void pass(RecurrentStates& states, int64_t position, const std::vector<uint32_t>& ids, bool finish = true) {
  const RecurrentLayout& layout = states.layout();
  states.reserve(position, std::ssize(ids));
  std::vector<float> rows;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = row_of(layout, ids[i]);
    rows.insert(rows.end(), row.begin(), row.end());
    if (float* log = states.log_row(position + static_cast<int64_t>(i)))
      std::copy(row.begin(), row.end(), log);
  }
  for (const auto& segment : states.segments())
    for (const auto& mixer : layout.mixers)
      for (int64_t h = 0; h < mixer.shape.kv_heads; ++h) {
        RecurrenceTokens tokens;
        tokens.update = rows.data() + (segment.begin - position) * layout.log_values + mixer.log +
                        h * mixer.shape.update_values();
        tokens.update_stride = layout.log_values;
        tokens.count = segment.end - segment.begin;
        const int64_t at = mixer.state + h * mixer.shape.head_values();
        run_recurrence(mixer.shape, tokens, 0, mixer.shape.columns(), segment.in + at, segment.out + at);
      }
  if (finish) states.advance();
}

std::vector<float> current(const RecurrentStates& states) {
  std::vector<float> out(static_cast<size_t>(states.layout().state_values));
  std::memcpy(out.data(), states.contents().current->data(), out.size() * sizeof(float));
  return out;
}

std::vector<float> straight(const std::shared_ptr<const RecurrentLayout>& layout,
                            const std::vector<uint32_t>& ids) {
  RecurrentStates states(layout);
  if (!ids.empty()) pass(states, 0, ids);
  return current(states);
}

class RecurrentStatesReach : public testing::TestWithParam<int64_t> {};

TEST_P(RecurrentStatesReach, AnyWayToAPositionGivesTheBitsOfTheStraightRun) {
  const auto layout = make_layout(GetParam());
  for (uint32_t seed = 0; seed < 8; seed += kStride) {
    std::mt19937 rng(seed);
    RecurrentStates states(layout);
    std::vector<uint32_t> held;
    int64_t low_water = 0;
    struct Saved {
      RecurrentStates states;
      std::vector<uint32_t> held;
      int64_t low_water;
    };
    std::vector<Saved> saved;
    const auto random_ids = [&](size_t n) {
      std::vector<uint32_t> ids(n);
      for (auto& id : ids) id = rng() % 50;
      return ids;
    };
    for (int action = 0; action < 120; ++action) {
      const int64_t position = std::ssize(held);
      switch (rng() % 7) {
        case 0:
          saved.push_back({states, held, low_water});
          break;
        case 1:
          if (saved.empty()) break;
          states = saved[rng() % saved.size()].states;
          for (const Saved& s : saved)
            if (s.states.contents().current == states.contents().current) {
              held = s.held;
              low_water = s.low_water;
            }
          break;
        case 2: {  // through a snapshot's hands
          RecurrentStates other(layout);
          other.restore(states.contents(), position, low_water);
          pass(states, position, random_ids(3));  // what the first does next must not reach the second
          states = other;
          break;
        }
        case 3: {
          const int64_t n = static_cast<int64_t>(rng()) % (position - low_water + 1);
          if (n == 0) break;
          states.rollback(position - n);
          held.resize(static_cast<size_t>(position - n));
          break;
        }
        case 4:  // cancelled
          pass(states, position, random_ids(1 + rng() % 40), false);
          break;
        default: {
          const auto ids = random_ids(rng() % 3 == 0 ? 1 + rng() % 200 : 1);
          pass(states, position, ids);
          held.insert(held.end(), ids.begin(), ids.end());
          low_water = std::max(low_water, std::ssize(held) - layout->reach);
        }
      }
      ASSERT_EQ(current(states), straight(layout, held)) << "seed " << seed << " action " << action;
    }
  }
}

TEST_P(RecurrentStatesReach, MemoryDoesNotGrow) {
  const auto layout = make_layout(GetParam());
  RecurrentStates states(layout);
  int64_t position = 0;
  const auto most_of = [&](int64_t tokens) {
    int64_t most = 0;
    for (const int64_t end = position + tokens; position < end; ++position) {
      pass(states, position, {static_cast<uint32_t>(position % 50)});
      most = std::max(most, states.bytes());
    }
    return most;
  };
  const int64_t early = most_of(800);
  EXPECT_EQ(most_of(2000), early);
}

INSTANTIATE_TEST_SUITE_P(Reaches, RecurrentStatesReach, testing::Values(0, 1, 2, 16, 17, 64, 100, 300),
                         [](const auto& p) { return std::to_string(p.param); });

TEST(RecurrentStates, RollbackBeforeTheOldestCheckpointIsRefused) {
  RecurrentStates states(make_layout(4));
  pass(states, 0, std::vector<uint32_t>(50, 1));
  EXPECT_NO_THROW(RecurrentStates(states).rollback(46));
  EXPECT_THROW(states.rollback(20), Error);
}

TEST(RecurrentStates, ContentsThatDoNotFitAreRefused) {
  const auto layout = make_layout(16);
  RecurrentStates states(layout);
  pass(states, 0, std::vector<uint32_t>(50, 1));
  const RecurrentStates::Contents good = states.contents();
  const auto refused = [&](const RecurrentStates::Contents& contents) {
    RecurrentStates other(layout);
    try {
      other.restore(contents, 50, 34);
    } catch (const Error& error) {
      return error.code() == ErrorCode::corrupt;
    }
    return false;
  };
  EXPECT_FALSE(refused(good));
  RecurrentStates::Contents bad = good;
  bad.current = nullptr;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.checkpoints.erase(bad.checkpoints.begin());
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.log.pop_back();
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.log.erase(bad.log.begin());
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.checkpoints[0].first += 1;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.log[0].second = std::make_shared<HugeBuffer>(64);
  EXPECT_TRUE(refused(bad));
  RecurrentStates none;
  EXPECT_THROW(none.restore(good, 50, 34), Error);
}

}  // namespace
}  // namespace mneme::recurrent_state_test

// Tables in parts, as a run keeps them: process 0 reads and writes any stretch of rows of all processes, and
// touches rows alone, while nobody holds more than their own.
#include "train/hosts/table_shards.h"

#include <gtest/gtest.h>

#include "mneme/error.h"
#include "train/hosts/workers.h"

namespace mneme::train::table_shards_test {
namespace {

std::unique_ptr<Training> described() {
  auto out = std::make_unique<Training>();
  out->config =
      ModelConfig::from_json(R"({"mneme": 1, "d_model": 32, "vocab": 96, "context": 64, "tied": true,
    "tables": {"facts": {"compressed_vocab": 96, "raw_ids": true, "max_ngram": 2, "heads": 2, "head_dim": 8,
                         "base_rows": [101], "layer_ids": [1]},
               "more": {"compressed_vocab": 96, "raw_ids": true, "max_ngram": 2, "heads": 1, "head_dim": 4,
                        "base_rows": [53], "layer_ids": [0, 4]}},
    "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 8}, "ffn": {"type": "dense", "hidden": 48}},
    "layers": [{"memory": {"table": "more", "layer_id": 4}}, {"memory": {"table": "facts", "layer_id": 1}},
               {"memory": {"table": "more", "layer_id": 4}}]})");
  out->ids = make_table_ids(out->config, nullptr);
  return out;
}

uint64_t rows_of(const Training& training, const std::string& table) {
  return training.ids.at(table).hash().rows();
}

/// N(0, 1) in the table "facts", twice as much in "more".
RowTable whole(const Training& training, const std::string& table) {
  return RowTable(rows_of(training, table), training.config.tables.at(table).head_dim, 7,
                  table == "facts" ? 1.0 : 2.0);
}

TableShards parts(const RowOptimiserConfig& config, const Training& training, ProcessGroup& group) {
  TableShards out(config, training, group);
  for (const auto& [name, table] : training.config.tables)
    out.add(name,
            ShardedTable(rows_of(training, name), table.head_dim, 7, name == "facts" ? 1.0 : 2.0, group));
  return out;
}

const AddScenario kStretches("stretches", [](ProcessGroup& group) {
  const auto training = described();
  for (const auto type : {RowOptimiserConfig::Type::adam, RowOptimiserConfig::Type::scalar}) {
    RowOptimiserConfig config;
    config.type = type;
    TableShards shards = parts(config, *training, group);
    for (const auto& [name, table] : training->config.tables)
      for (const auto& [kind, own] : shards.here(name))
        EXPECT_EQ(static_cast<uint64_t>(own.size(0)), own_rows(rows_of(*training, name), group))
            << name << kind;
    int read = 0;
    shards.serve([&] {
      for (const auto& [name, table] : training->config.tables) {
        const uint64_t rows = rows_of(*training, name);
        const Tensor expected = whole(*training, name).values();
        for (const auto& [first, count] :
             {std::pair<uint64_t, uint64_t>{0, rows}, {0, 1}, {rows - 1, 1}, {5, 17}, {3, 0}})
          EXPECT_TRUE(
              at::equal(shards.read(name, "rows", first, count),
                        expected.slice(0, static_cast<int64_t>(first), static_cast<int64_t>(first + count))))
              << name << " " << first << " " << count;
        EXPECT_THROW(shards.read(name, "rows", 3, rows), Error);
        for (const auto& [kind, own] : shards.here(name)) {
          std::vector<int64_t> shape = own.sizes().vec();
          shape[0] = static_cast<int64_t>(rows);
          const Tensor values =
              at::arange(1, own.numel() / own.size(0) * shape[0] + 1, at::kFloat).reshape(shape);
          for (uint64_t first = 0; first < rows; first += 10)
            shards.write(name, kind, first,
                         values.slice(0, static_cast<int64_t>(first),
                                      static_cast<int64_t>(std::min(first + 10, rows))));
          EXPECT_TRUE(at::equal(shards.read(name, kind, 0, rows), values)) << name << " " << kind;
          ++read;
        }
      }
    });
    EXPECT_EQ(read > 0, group.is_first());
  }
});

TEST(TableShards, AnyStretchOfRowsIsReadAndWritten) {
  expect_success("stretches");
}

const AddScenario kAlone("touched_alone", [](ProcessGroup& group) {
  const auto training = described();
  TableShards shards = parts({}, *training, group);
  const Tensor tokens = at::arange(0, 12, at::kLong).reshape({1, 12}) * 7 % 96;
  RowTables tables;
  for (const auto& entry : training->config.tables)
    tables.emplace(entry.first, whole(*training, entry.first));
  const BatchRows expected = touch_rows(training->config, training->ids, tables, tokens);
  shards.serve([&] {
    for (int i = 0; i < 2; ++i) {
      const BatchRows got = shards.touch_alone(tokens);
      for (const auto& [table, layers] : expected)
        for (const auto& [layer, touched] : layers)
          EXPECT_TRUE(at::equal(got.at(table).at(layer).rows, touched.rows)) << table << layer;
    }
  });
  // Rows that two layers share are sent once, and their gradient is one.
  const BatchRows rows = shards.touch(tokens);
  for_leaves(rows, [](const std::string&, const TouchedRows& touched) {
    touched.rows.mutable_grad() = at::ones_like(touched.rows);
  });
  double squares = 0;
  for_leaves(expected, [&](const std::string&, const TouchedRows& touched) {
    squares += static_cast<double>(touched.rows.numel());
  });
  EXPECT_DOUBLE_EQ(shards.collect(rows), squares);
  shards.update(1e-3, 1);
  EXPECT_EQ(shards.here("more").at("touched").max().item<float>(), 1);
});

TEST(TableShards, ProcessZeroTouchesAlone) {
  expect_success("touched_alone");
}

const AddScenario kFails("fails_while_served", [](ProcessGroup& group) {
  const auto training = described();
  TableShards shards = parts({}, *training, group);
  shards.serve([&] {
    shards.read("facts", "rows", 0, 5);
    throw Error(ErrorCode::io, "the disk is full");
  });
});

TEST(TableShards, AnErrorOfProcessZeroEndsTheOthers) {
  const std::vector<Worker> workers = run_workers("fails_while_served", 2);
  for (const Worker& worker : workers) {
    EXPECT_EQ(worker.exit_code, 3) << worker.output;
    EXPECT_NE(worker.output.find("the disk is full"), std::string::npos) << worker.output;
    EXPECT_LT(worker.seconds, 20);
  }
}

}  // namespace
}  // namespace mneme::train::table_shards_test

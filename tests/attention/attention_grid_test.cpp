// SPDX-License-Identifier: MIT
// Every model shape × storage × ISA × source of keys and values gives what the definition says.
#include <string>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

struct Model {
  const char* name;
  Heads<> heads;
};

const Model kModels[] = {
    {"Llama3_8B", {32, 8, 128}},      {"Llama3_70B", {64, 8, 128}},    {"Falcon_7B", {71, 1, 64}},
    {"SmolLM2", {9, 3, 64}},          {"Gemma3_1B", {4, 1, 256}},      {"T5_XXL", {64, 64, 64}},
    {"Odd_5_5_46", {5, 5, 46}},       {"Odd_6_2_80", {6, 2, 80}},      {"Mha_8_96", {8, 8, 96}},
    {"Dims_112_64", {8, 2, 112, 64}}, {"Mla_like", {16, 1, 192, 128}},
};

/// Keys around the borders of blocks (16), tiles (64) and segments (1024); queries from decode to prefill.
struct Lengths {
  Index queries, keys;
};
constexpr Lengths kLengths[] = {{1, 0},   {1, 1},    {1, 15},  {1, 16},   {1, 17},   {1, 63},   {1, 64},  {1, 65},
                                {1, 127}, {1, 128},  {1, 129}, {2, 64},   {2, 130},  {5, 5},    {5, 17},  {5, 100},
                                {33, 33}, {33, 129}, {7, 3},   {1, 1023}, {1, 1024}, {2, 1025}, {1, 2100}};

class Grid : public ::testing::TestWithParam<Model> {};

TEST_P(Grid, GivesWhatTheDefinitionSays) {
  const Heads<>& heads = GetParam().heads;
  const Isa before = current_isa();
  unsigned seed = 0;
  for (const auto& [queries, keys] : kLengths) {
    const Inputs in(heads, 1, queries, keys, ++seed);
    const Expected expected(in);
    for (const Storage storage : kAllStorages)
      for (const Source source : kAllSources) {
        // the layouts of rows differ in how a tile is read only: the short lengths show that
        if (keys > 130 && source > Source::packed_rows) continue;
        const Route route{.source = source, .storage = storage};
        with_source(in, route, [&](const auto& kv) {
          for (const Isa isa : available_isas()) {
            if (HasFatalFailure()) return;
            set_isa(isa);
            expected.check(run_over(kv, in, {}, Serial{}, route), route);
          }
        });
      }
  }
  set_isa(before);
}

INSTANTIATE_TEST_SUITE_P(Models, Grid, ::testing::ValuesIn(kModels),
                         [](const auto& model) { return std::string(model.param.name); });

// The grid's numbers are coarse, so that every storage holds them; here they have all the bits their storage has.
class FullPrecision : public EveryIsa {};

TEST_P(FullPrecision, GivesWhatTheDefinitionSays) {
  unsigned seed = 100;
  for (const Heads<>& heads : {Heads<>{4, 1, 128}, Heads<>{3, 3, 64}, Heads<>{6, 2, 80, 48}})
    for (const Storage storage : kAllStorages)
      for (const auto& [queries, keys] : {Lengths{1, 100}, Lengths{1, 1500}, Lengths{9, 9}, Lengths{40, 200}})
        for (const Source source : {Source::cache, Source::packed_rows}) {
          const Inputs in(heads, 1, queries, keys, ++seed, {.coarse = false, .storage = storage});
          expect_defined(in, {.source = source, .storage = storage, .queries = storage});
          if (HasFatalFailure()) return;
        }
}

HEADWISE_FOR_EVERY_ISA(FullPrecision);

}  // namespace
}  // namespace headwise

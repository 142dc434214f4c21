// SPDX-License-Identifier: MIT
#include "headwise/cost/known_models.hpp"

#include <map>
#include <set>

#include "headwise/cost/model.hpp"
#include "tests/support/errors.hpp"

namespace headwise::cost {
namespace {

Model model(std::string_view name) { return Model(known_model(name)); }
Index stored(std::string_view name) { return model(name).kv_bytes_stored_per_token(Storage::bf16); }

TEST(KnownModels, HaveThePublishedNumberOfParameters) {
  const std::map<std::string, Index> published = {
      {"Llama-2-7B", 6'738'415'616},     {"Llama-3-8B", 8'030'261'248}, {"Llama-3-70B", 70'553'706'496},
      {"Llama-3-405B", 405'853'388'800}, {"DeciLM-7B", 7'043'551'232},  {"Mistral-7B", 7'241'732'096},
      {"Falcon-7B", 6'921'720'704},      {"SmolLM2-135M", 134'515'008}, {"Gemma-3-1B", 999'885'952},
      {"T5-XXL", 11'135'332'352},
  };
  for (const auto& [name, parameters] : published) EXPECT_EQ(model(name).parameters(), parameters) << name;
  EXPECT_NEAR(static_cast<double>(model("DeciLM-6B").parameters()), 5.7e9, 0.05e9);  // published as 5.7 billion
}

TEST(KnownModels, Llama3StoresTheseBytesPerToken) {
  EXPECT_EQ(stored("Llama-3-8B"), 131'072);
  EXPECT_EQ(stored("Llama-3-70B"), 327'680);
  EXPECT_EQ(stored("Llama-3-405B"), 516'096);
}

TEST(KnownModels, DeciLmHasHeadCountsPerLayer) {
  const Model seven = model("DeciLM-7B"), six = model("DeciLM-6B");
  const auto kv_heads = [](const Model& m) {
    Index sum = 0;
    for (Index l = 0; l < m.num_layers(); ++l) sum += m.attention(l).num_kv_heads();
    return sum;
  };
  EXPECT_EQ(seven.num_layers(), 32);
  EXPECT_EQ(kv_heads(seven), 67);
  EXPECT_EQ(stored("DeciLM-7B"), 34'304);
  EXPECT_EQ(six.num_layers(), 32);
  EXPECT_EQ(kv_heads(six), 50);
  EXPECT_EQ(stored("DeciLM-6B"), 25'600);
  EXPECT_EQ(seven.attention(4).num_kv_heads(), 4);
  EXPECT_EQ(seven.attention(5).num_kv_heads(), 2);
  EXPECT_EQ(seven.attention(10).num_kv_heads(), 4);
  EXPECT_EQ(seven.attention(20).num_kv_heads(), 1);
  EXPECT_EQ(seven.attention(31).num_kv_heads(), 4);
}

TEST(KnownModels, CrossLayerAttentionStoresTheseBytesPerToken) {
  EXPECT_EQ(stored("CLA-H128-MHA"), 163'840);
  EXPECT_EQ(stored("CLA-H128-GQA4"), 40'960);
  EXPECT_EQ(stored("CLA-H128-GQA2"), 20'480);
  EXPECT_EQ(stored("CLA-H128-MQA"), 10'240);
  EXPECT_EQ(stored("CLA-H128-MQA-CLA2"), 5'120);
  EXPECT_EQ(stored("CLA-H64-MQA-CLA2"), 2'560);
  EXPECT_EQ(stored("CLA-H128-MQA-CLA3"), 3'584);
  EXPECT_EQ(stored("CLA-H128-MQA-CLA4"), 2'560);
  EXPECT_EQ(stored("CLA-H128-MQA-CLA2-keep-ends"), 5'632);
  EXPECT_EQ(stored("CLA-H128-MQA-dense-front"), 5'632);
  EXPECT_EQ(stored("CLA-H128-MQA-dense-back"), 5'632);
}

// no named models: bytes do not depend on how many query heads read them
TEST(KnownModels, CrossLayerAttentionOfOddHeadDimsStoresTheseBytesPerToken) {
  const auto stored_by = [](Index head_dim, Index layers_per_group) {
    const AttentionShape mqa{
        .hidden_size = 2048, .num_heads = 2048 / head_dim, .num_kv_heads = 1, .head_dim = head_dim};
    return Model(ModelShape::uniform("", 20, {.attention = mqa}).with_sharing(KvSharing::every(20, layers_per_group)))
        .kv_bytes_stored_per_token(Storage::f16);
  };
  EXPECT_EQ(stored_by(46, 1), 3'680);
  EXPECT_EQ(stored_by(90, 2), 3'600);
}

TEST(KnownModels, AreFoundByNameInAnyCase) {
  std::set<std::string> names;
  for (const ModelShape& shape : known_models()) {
    EXPECT_TRUE(names.insert(shape.name).second) << shape.name;
    EXPECT_EQ(&known_model(shape.name), &shape);
  }
  EXPECT_EQ(known_model("llama-3-8b").name, "Llama-3-8B");
  testing::expect_error([] { known_model("Llama-4"); }, {"model (Llama-4)", "Llama-3-8B", "CLA-H64-MQA-CLA2"});
  testing::expect_error([] { known_model(""); }, {"model ()"});
}

TEST(KnownModels, GemmaSeesAllKeysInEverySixthLayer) {
  const ModelShape& gemma = known_model("Gemma-3-1B");
  Index global = 0;
  for (const LayerShape& layer : gemma.layers) global += !layer.window;
  EXPECT_EQ(global, 4);
  EXPECT_FALSE(gemma.layers[5].window);
  EXPECT_EQ(gemma.layers[4].window, 512);
}

}  // namespace
}  // namespace headwise::cost

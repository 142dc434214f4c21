// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/cost/attention_layer.hpp"
#include "headwise/cost/checked.hpp"
#include "headwise/cost/format.hpp"
#include "headwise/cost/machine.hpp"
#include "headwise/cost/model_shape.hpp"
#include "headwise/cost/step.hpp"

namespace headwise::cost {

/// What the caches of layers with a window hold: every token, or only those that a later token can still see.
enum class WindowCaches { hold_all, hold_window };

/// Memory for the weights and the caches of a model.
struct MemoryBudget {
  Index bytes = 0;
  /// Sequences held at the same time, each with a cache of its own.
  Index batch = 1;
  KvFormat kv = Storage::bf16;
  /// Format of the weights where they take their part of `bytes`; unset: `bytes` is for caches alone.
  std::optional<ElementFormat> weights{};
  WindowCaches windows = WindowCaches::hold_all;
  /// Tokens of each encoded source, for models with cross-attention.
  Index source_tokens = 0;
};

/// A context that any budget fits: every layer has a window and holds no more.
inline constexpr Index kUnboundedContext = std::numeric_limits<Index>::max();

/// The cost of a whole model. Cross-layer attention (Brandon et al. 2024, arXiv 2405.12981) saves what is stored, what is
/// written and the projections of keys and values; it does not save reads, since every layer reads the shared cache again.
/// So kv_bytes_stored_per_token is a sum over producers and kv_bytes_read_per_step one over all layers.
class Model {
 public:
  /// Throws std::invalid_argument that names what disagrees: no layers, hidden sizes, the number of layers that `sharing`
  /// describes, keys and values of a borrower and its producer, negative counts, parameters of 2⁶³ and more.
  explicit Model(ModelShape shape) : shape_(std::move(shape)) {
    require(!shape_.layers.empty(), "layers (0) of a Model must be at least 1");
    if (!shape_.sharing) shape_.sharing = KvSharing::none(num_layers());
    require(sharing().num_layers() == num_layers(), "sharing (", sharing().num_layers(),
            " layers) must describe the layers (", num_layers(), ") of the Model");
    for (const LayerShape& layer : shape_.layers) add(layer, "layers", layers_);
    for (const LayerShape& layer : shape_.encoder_layers) add(layer, "encoder_layers", encoder_layers_);
    for (Index l = 0; l < num_layers(); ++l) check_sharing(l);
    require(shape_.vocabulary.size >= 0, "vocabulary size (", shape_.vocabulary.size, ") must be at least 0");
    require(shape_.other_parameters >= 0, "other_parameters (", shape_.other_parameters, ") must be at least 0");
    require(shape_.context >= 0, "context (", shape_.context, ") must be at least 0");
    parameters();  // refuses a model whose count overflows
  }

  const ModelShape& shape() const { return shape_; }
  const std::string& name() const { return shape_.name; }
  const KvSharing& sharing() const { return *shape_.sharing; }
  Index num_layers() const { return std::ssize(shape_.layers); }
  Index hidden_size() const { return layers_.front().attention.hidden_size(); }
  /// Self-attention of layer 0 … num_layers() − 1.
  const AttentionLayer& attention(Index layer) const { return at(layer).attention; }
  /// Parameters of that layer's self-attention: without Wk and Wv where it borrows.
  Index attention_parameters(Index layer) const { return attention(layer).parameters(role(layer)); }

  /// Parameters of every attention layer: self, cross and of the encoder.
  Index attention_parameters() const {
    Index total = 0;
    for (Index l = 0; l < num_layers(); ++l) {
      add_to(total, attention_parameters(l));
      if (at(l).cross_attention) add_to(total, at(l).cross_attention->parameters());
    }
    for (const Layer& layer : encoder_layers_) add_to(total, layer.attention.parameters());
    return total;
  }

  /// Parameters of all that the shape describes: attention, feed-forward, norms, vocabulary, and other_parameters.
  Index parameters() const {
    Index total = decoder_parameters();
    for (std::size_t l = 0; l < encoder_layers_.size(); ++l) {
      add_to(total, encoder_layers_[l].attention.parameters());
      add_to(total, parameters_beside_attention(shape_.encoder_layers[l]));
    }
    add_to(total, shape_.vocabulary.tied ? 0 : vocabulary_parameters());  // the input's embedding
    return total;
  }

  /// Bytes of keys and values that a token adds to the caches: the sum over the layers that make their own. As many are
  /// written by each step for each new token. All tokens are held; see kv_bytes_held for windows.
  Index kv_bytes_stored_per_token(const KvFormat& format) const {
    Index total = 0;
    for (const Index l : sharing().producers()) add_to(total, attention(l).kv_bytes_per_token(format));
    return total;
  }

  /// Bytes of keys and values that one step reads: the sum over all layers, borrowers too, within their windows, and
  /// over cross-attention. To decode with a context of T keys: Step::decode(T).
  double kv_bytes_read_per_step(const Step& step, const KvFormat& format) const {
    return cost(step, {.kv = format}).kv_bytes;
  }

  /// Bytes that the caches of `batch` sequences of `tokens` ≥ 0 tokens hold, cross-attention's among them.
  Index kv_bytes_held(Index tokens, const KvFormat& format, Index batch = 1,
                      WindowCaches windows = WindowCaches::hold_all, Index source_tokens = 0) const {
    require(tokens >= 0, "tokens (", tokens, ") must be at least 0");
    require(batch >= 1, "batch (", batch, ") must be at least 1");
    require(source_tokens >= 0, "source_tokens (", source_tokens, ") must be at least 0");
    Index total = 0;
    for (Index l = 0; l < num_layers(); ++l) {
      const Index held = std::min(tokens, most_held(l, windows));
      if (sharing().is_producer(l))
        add_to(total, detail::product(kHeld, {batch, held, attention(l).kv_bytes_per_token(format)}));
      if (const auto& cross = at(l).cross_attention)
        add_to(total, detail::product(kHeld, {batch, source_tokens, cross->kv_bytes_per_token(format)}));
    }
    return total;
  }

  /// The most tokens that every sequence of the batch can hold in the budget; 0 where not even the weights fit,
  /// kUnboundedContext where the caches stop growing before it is spent.
  Index longest_context(const MemoryBudget& budget) const {
    require(budget.bytes >= 0, "bytes (", budget.bytes, ") of a MemoryBudget must be at least 0");
    const Index weights = budget.weights ? budget.weights->bytes(parameters()) : 0;
    const auto fits = [&](Index tokens) {
      const Index held = kv_bytes_held(tokens, budget.kv, budget.batch, budget.windows, budget.source_tokens);
      return weights <= budget.bytes && held <= budget.bytes - weights;
    };
    if (!fits(0)) return 0;
    Index growing = 0, last_window = 0;  // bytes per token that never stop growing; where the others all have stopped
    for (const Index l : sharing().producers()) {
      if (const Index most = most_held(l, budget.windows); most == kUnboundedContext)
        add_to(growing, attention(l).kv_bytes_per_token(budget.kv));
      else
        last_window = std::max(last_window, most);
    }
    if (growing == 0 && fits(last_window)) return kUnboundedContext;
    Index low = 0, high = growing == 0 ? last_window : budget.bytes / detail::product(kHeld, {growing, budget.batch});
    while (low < high) {  // low fits, nothing above high does
      const Index middle = low + (high - low) / 2 + (high - low) % 2;
      if (fits(middle))
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }

  /// Everything that a step of the decoder asks for. The output matrix makes the logits of each sequence's last token;
  /// looking up embeddings is not counted, nor is the encoder, nor the projection of what cross-attention reads.
  StepCost cost(const Step& step, const Formats& formats) const {
    StepCost total;
    for_each_part(step, formats, [&](const StepCost& part) { total += part; });
    return total;
  }

  /// The least time of that step, in seconds: the sum of the parts, one after another, each limited by arithmetic or by
  /// memory (roofline_seconds).
  double seconds(const Step& step, const Formats& formats, const Machine& machine) const {
    double total = 0;
    for_each_part(step, formats, [&](const StepCost& part) { total += roofline_seconds(part, machine); });
    return total;
  }

 private:
  struct Layer {
    AttentionLayer attention;
    std::optional<AttentionLayer> cross_attention;
  };
  static constexpr const char* kHeld = "bytes of caches";

  static void add_to(Index& total, Index more) { total = detail::sum("sum over layers", {total, more}); }

  void add(const LayerShape& shape, const char* list, std::vector<Layer>& layers) {
    Layer layer{AttentionLayer(shape.attention), std::nullopt};
    if (shape.cross_attention) layer.cross_attention.emplace(*shape.cross_attention);
    const Index hidden = layers_.empty() ? layer.attention.hidden_size() : hidden_size();
    const auto check = [&](const AttentionLayer& attention) {
      require(attention.hidden_size() == hidden, "hidden_size (", attention.hidden_size(), ") of ", list, "[",
              layers.size(), "] must be that of layers[0] (", hidden, ")");
    };
    check(layer.attention);
    if (layer.cross_attention) check(*layer.cross_attention);
    detail::check_window(shape.window);
    require(shape.norm_parameters >= 0, "norm_parameters (", shape.norm_parameters, ") of ", list, "[", layers.size(),
            "] must be at least 0");
    shape.feed_forward.parameters(hidden);  // refuses what cannot be
    layers.push_back(std::move(layer));
  }

  void check_sharing(Index l) const {
    const AttentionLayer &borrower = attention(l), &producer = attention(sharing().source(l));
    const auto same = [&](const char* what, Index own, Index shared) {
      require(own == shared, what, " (", own, ") of layers[", l, "] must be that of layers[", sharing().source(l),
              "] (", shared, "), whose keys and values it reads");
    };
    same("num_kv_heads", borrower.num_kv_heads(), producer.num_kv_heads());
    same("head_dim", borrower.head_dim(), producer.head_dim());
    same("value_dim", borrower.value_dim(), producer.value_dim());
  }

  const Layer& at(Index layer) const {
    require(layer >= 0 && layer < num_layers(), "layer (", layer, ") must be 0 to num_layers - 1 (", num_layers() - 1,
            ")");
    return layers_[static_cast<std::size_t>(layer)];
  }
  const LayerShape& shape_of(Index layer) const { return shape_.layers[static_cast<std::size_t>(layer)]; }
  KvRole role(Index layer) const { return sharing().is_producer(layer) ? KvRole::producer : KvRole::borrower; }

  /// The most tokens that the cache of a producer ever holds: as many as the widest window that reads it.
  Index most_held(Index producer, WindowCaches windows) const {
    if (windows == WindowCaches::hold_all) return kUnboundedContext;
    Index most = 0;
    for (Index l = producer; l < num_layers(); ++l)
      if (sharing().source(l) == producer) most = std::max(most, shape_of(l).window.value_or(kUnboundedContext));
    return most;
  }

  Index parameters_beside_attention(const LayerShape& layer) const {
    return detail::sum("parameters of a layer", {layer.feed_forward.parameters(hidden_size()), layer.norm_parameters});
  }
  Index vocabulary_parameters() const {
    return detail::product("parameters of the vocabulary", {shape_.vocabulary.size, hidden_size()});
  }
  /// Without the encoder and without an embedding that is not the output matrix: what a step reads.
  Index decoder_parameters() const {
    Index total = detail::sum("parameters", {vocabulary_parameters(), shape_.other_parameters});
    for (Index l = 0; l < num_layers(); ++l) {
      add_to(total, attention_parameters(l));
      if (at(l).cross_attention) add_to(total, at(l).cross_attention->parameters());
      add_to(total, parameters_beside_attention(shape_of(l)));
    }
    return total;
  }

  /// Calls f(cost) for each part of a step in turn.
  template <class F>
  void for_each_part(const Step& step, const Formats& formats, F f) const {
    detail::check_step(step);
    const double tokens = detail::number(step.batch) * detail::number(step.new_tokens);
    const auto product_with = [&](double rows, Index weights, Index parameters) {
      return StepCost{.projection_flops = 2 * rows * detail::number(weights),
                      .weight_bytes = detail::number(formats.weights.bytes(parameters))};
    };
    for (Index l = 0; l < num_layers(); ++l) {
      f(attention(l).cost(step, formats, role(l), shape_of(l).window));
      if (const auto& cross = at(l).cross_attention) f(cross->cross_attention_cost(step, formats));
      f(product_with(tokens, shape_of(l).feed_forward.weights(hidden_size()),
                     parameters_beside_attention(shape_of(l))));
    }
    f(product_with(detail::number(step.batch), vocabulary_parameters(),
                   detail::sum("parameters", {vocabulary_parameters(), shape_.other_parameters})));
  }

  ModelShape shape_;
  std::vector<Layer> layers_, encoder_layers_;
};

}  // namespace headwise::cost

// SPDX-License-Identifier: MIT
#include "headwise/nn/linear.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/nn/random_matrix.hpp"
#include "tests/support/errors.hpp"

namespace headwise::nn {
namespace {

using headwise::testing::expect_error;
using headwise::testing::random_matrix;
using headwise::testing::random_vector;

struct Size {
  Index tokens, outputs, inputs;
};
std::ostream& operator<<(std::ostream& out, const Size& s) {
  return out << s.tokens << " tokens, " << s.outputs << " x " << s.inputs;
}

// around the register tiles (4 tokens, 2 and 4 outputs), the blocks (64 tokens, 32 outputs) and the vectors
constexpr Size kSizes[] = {{1, 1, 1},  {1, 7, 3},    {2, 4, 15},   {3, 33, 16},  {4, 32, 17},
                           {5, 31, 8}, {63, 5, 100}, {64, 66, 64}, {65, 97, 33}, {130, 3, 257}};

TEST(Linear, IsTheProductWithTheTransposedWeightPlusTheBias) {
  for (const Size& size : kSizes) {
    SCOPED_TRACE(::testing::Message() << size);
    const Matrix x = random_matrix(size.tokens, size.inputs, 1), weight = random_matrix(size.outputs, size.inputs, 2);
    const Vector bias = random_vector(size.outputs, 3);
    Matrix y(size.tokens, size.outputs), without(size.tokens, size.outputs);
    Linear(weight, bias)(x, y);
    Linear{weight}(x, without);
    const Eigen::MatrixXd product = x.cast<double>() * weight.transpose().cast<double>();
    // a sum of n products is off by at most (n + 1) roundings of the sum of their magnitudes
    const Eigen::MatrixXd bound =
        (x.cast<double>().cwiseAbs() * weight.transpose().cast<double>().cwiseAbs()).array() + 1.0;
    for (Index t = 0; t < size.tokens; ++t)
      for (Index o = 0; o < size.outputs; ++o) {
        const double tolerance = static_cast<double>(size.inputs + 2) * 0x1p-24 * bound(t, o);
        ASSERT_NEAR(without(t, o), product(t, o), tolerance) << t << ", " << o;
        ASSERT_NEAR(y(t, o), product(t, o) + static_cast<double>(bias(o)), tolerance) << t << ", " << o;
      }
  }
}

TEST(Linear, GivesARowTheSameBitsAloneAndAmongOthers) {
  for (const Size& size : kSizes) {
    SCOPED_TRACE(::testing::Message() << size);
    const Matrix x = random_matrix(size.tokens, size.inputs, 4);
    const Linear linear(random_matrix(size.outputs, size.inputs, 5), random_vector(size.outputs, 6));
    Matrix all(size.tokens, size.outputs), alone(1, size.outputs);
    linear(x, all);
    for (Index t = 0; t < size.tokens; ++t) {
      linear(x.row(t), alone);
      for (Index o = 0; o < size.outputs; ++o) ASSERT_EQ(alone(0, o), all(t, o)) << t << ", " << o;
    }
  }
}

TEST(Linear, GivesTheSameBitsOnAnyNumberOfThreads) {
  ThreadPool two(2), three(3);
  for (const Size& size : kSizes) {
    const Matrix x = random_matrix(size.tokens, size.inputs, 7);
    const Linear linear(random_matrix(size.outputs, size.inputs, 8));
    Matrix serial(size.tokens, size.outputs), threaded(size.tokens, size.outputs);
    linear(x, serial);
    linear(x, threaded, two);
    EXPECT_EQ(serial, threaded) << size;
    linear(x, threaded, three);
    EXPECT_EQ(serial, threaded) << size;
  }
}

TEST(Linear, ReadsAndWritesBlocksOfLargerMatrices) {
  const Matrix wide = random_matrix(9, 50, 9);
  const Linear linear(random_matrix(6, 20, 10));
  Matrix packed(5, 6), target = Matrix::Constant(9, 30, 4.0f);
  linear(Matrix(wide.block(2, 7, 5, 20)), packed);
  linear(wide.block(2, 7, 5, 20), target.block(3, 11, 5, 6));
  EXPECT_EQ(Matrix(target.block(3, 11, 5, 6)), packed);
  target.block(3, 11, 5, 6).setConstant(4.0f);
  EXPECT_EQ(target, Matrix::Constant(9, 30, 4.0f));
}

TEST(Linear, ViewRefersToTheCallersMemory) {
  Matrix weight = random_matrix(5, 8, 11);
  Vector bias = random_vector(5, 12);
  const Matrix x = random_matrix(3, 8, 13);
  const Linear linear = Linear::view(weight.data(), 5, 8, bias.data());
  EXPECT_EQ(linear.weight(), weight.data());
  EXPECT_EQ(linear.bias(), bias.data());
  Matrix viewed(3, 5), owned(3, 5);
  linear(x, viewed);
  Linear(weight, bias)(x, owned);
  EXPECT_EQ(viewed, owned);
  weight *= 2.0f;  // powers of two are exact
  bias *= 2.0f;
  linear(x, viewed);
  EXPECT_EQ(viewed, Matrix(owned * 2.0f));
}

TEST(Linear, CopiesAndMovesKeepTheWeights) {
  const Matrix weight = random_matrix(5, 8, 14), x = random_matrix(1, 8, 15);
  Linear original(weight);
  const Linear copy = original;
  EXPECT_NE(copy.weight(), original.weight());
  const Linear moved = std::move(original);
  Matrix a(1, 5), b(1, 5);
  copy(x, a);
  moved(x, b);
  EXPECT_EQ(a, b);
  EXPECT_EQ(moved.outputs(), 5);
  EXPECT_EQ(moved.inputs(), 8);
}

TEST(Linear, DoesNotReadBeyondItsInputs) {
  // the columns that follow are NaN
  Matrix x = Matrix::Constant(3, 40, std::numeric_limits<float>::quiet_NaN());
  x.leftCols(19) = random_matrix(3, 19, 16);
  Matrix y(3, 4);
  Linear{random_matrix(4, 19, 17)}(x.leftCols(19), y);
  EXPECT_TRUE(y.allFinite());
}

TEST(Linear, RefusesShapesThatDoNotFit) {
  const Linear linear(random_matrix(5, 8, 18));
  Matrix x = random_matrix(3, 8, 19), y = Matrix::Zero(3, 5);
  expect_error([&] { linear(Matrix(3, 7), y); }, {"x (3 x 7)", "(8)"});
  Matrix short_y(2, 5), narrow_y(3, 4);
  expect_error([&] { linear(x, short_y); }, {"y (2 x 5)", "3 x 5"});
  expect_error([&] { linear(x, narrow_y); }, {"y (3 x 4)", "3 x 5"});
  expect_error([&] { Linear(Matrix(5, 8), Vector(4)); }, {"bias (4 numbers)", "(5)"});
  expect_error([&] { Linear::view(nullptr, 5, 8); }, {"weight (null)", "5 x 8"});
  expect_error([&] { Linear::view(x.data(), -1, 8); }, {"outputs (-1)"});
  expect_error([&] { Linear::view(x.data(), 5, -8); }, {"inputs (-8)"});
}

}  // namespace
}  // namespace headwise::nn

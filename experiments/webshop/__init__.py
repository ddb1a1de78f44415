"""WebShop: the paper's protocol on the benchmark or on the embedded shop."""

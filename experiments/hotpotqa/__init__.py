"""HotpotQA: the paper's protocol on the data set or on the embedded wiki."""

function openReceipt() {}
